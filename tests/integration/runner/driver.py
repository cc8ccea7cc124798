"""A runner without gRPC, as a process of its own, to be killed: `python -m tests.integration.runner.driver ROOT
BEHAVIOUR`.

Loads the model `m` and writes a line for each state it goes through, and when the journal has its process.
"""

import json
import sys
from pathlib import Path

import anyio
from slipway_runner.models.record import Model

from tests.integration.runner.fakes import FakeBackend, Seen, bench


async def main() -> None:
    """Load, and stay."""
    root, behaviour = Path(sys.argv[1]), json.loads(sys.argv[2])
    async with bench(root, backend=FakeBackend(behaviour=behaviour), stop=False) as on:
        tell(on.seen)
        await on.fleet.load(on.spec(), "m")
        await on.seen.until(lambda: on.fleet.supervisor("m").attached is not None)
        await on.fleet.journal.flush()
        print("WRITTEN", flush=True)  # what a kill takes away no more
        await anyio.sleep_forever()


def tell(seen: Seen) -> None:
    """Write down what the sink hears."""
    publish, progress = seen.publish, seen.progress

    def publish_too(model: Model) -> None:
        publish(model)
        print("STATE", model.state.value, model.pid, model.uid, flush=True)

    def progress_too(model_id: str, uid: str, told: object) -> None:
        progress(model_id, uid, told)  # type: ignore[arg-type]
        print("PROGRESS", getattr(told, "shards_done", 0), flush=True)

    seen.publish, seen.progress = publish_too, progress_too  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    anyio.run(main)
