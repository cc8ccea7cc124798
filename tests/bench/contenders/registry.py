"""A registry without its API, as it is configured by default: fetches one selection, says what that cost, and ends.

The figures (one JSON object) are of the download alone, from its creation to SUCCEEDED, and its memory over that of the
idle process: a registry is started once.
"""

import json
import resource
import sys
import time
from pathlib import Path

import anyio
from slipway_registry.hub.credentials import ANONYMOUS
from slipway_registry.hub.rate import RateBudget
from slipway_registry.jobs.assemble import EngineSettings, download_engine
from slipway_registry.jobs.records import Download, Progress, State
from slipway_registry.jobs.store import Entry
from slipway_registry.transfer.choice import Transport

from tests.bench.contenders.measured import forget_peak, peak, resident
from tests.faults.driver import parse_request


class Ends:
    """Waits for the first end of a download."""

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.last: Download | None = None

    def transition(self, entry: Entry) -> None:
        self.last = entry.download
        if entry.download and entry.download.state.terminal:
            self.ended.set()

    def progress(self, download: Download, progress: Progress) -> None:
        """Nobody watches."""


async def run(directory: Path, endpoint: str, transport: Transport, creation: str) -> None:
    told = Ends()
    settings = EngineSettings(
        state_directory=directory / "state", hub=directory / "hub", endpoint=endpoint, transport=transport
    )
    request = parse_request(json.loads(creation))
    async with download_engine(
        settings, credential=lambda: ANONYMOUS, quota=RateBudget(), listener=lambda _: told
    ) as engine:
        forget_peak()
        usage, begin, idle = resource.getrusage(resource.RUSAGE_SELF), time.monotonic(), resident("self")
        await engine.scheduler.create(request)
        await told.ended.wait()
        wall, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_SELF)
        assert told.last
        assert told.last.state is State.SUCCEEDED, told.last.failure
        cpu = after.ru_utime - usage.ru_utime + after.ru_stime - usage.ru_stime
        print(json.dumps({"wall": wall, "cpu": cpu, "memory": peak("self") - idle}), flush=True)


if __name__ == "__main__":
    anyio.run(run, Path(sys.argv[1]), sys.argv[2], Transport(sys.argv[3]), sys.argv[4])
