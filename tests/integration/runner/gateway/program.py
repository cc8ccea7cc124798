"""A runner without gRPC: models on fake backends behind a gateway.

As a process of its own, to be killed: `python -m tests.integration.runner.gateway.program ROOT`. It loads the model
`m`, writes the gateway's address when that is LOADED, and stays.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
from slipway_runner.backends.base import Launch, LaunchPlan
from slipway_runner.gateway.keeper import Gateway, open_gateway
from slipway_runner.gateway.launch import Setup
from slipway_runner.models.fleet import Fleet, open_fleet
from slipway_runner.models.record import Activation, Model
from slipway_runner.models.snapshots import LocalPaths
from slipway_runner.models.spec import PathSource, Spec
from slipway_runner.models.states import State
from slipway_runner.progress.tracker import LoadProgress
from slipway_service.values import ListenAddress

from tests.integration.runner.fakes import QUICK as NUMBERS
from tests.integration.runner.fakes import FakeBackend, Seen, backends_of, cpu

STREAM, QUICK = "/v1/chat/completions", "/v1/completions"
"""The gateway's paths of what streams for ever and of what answers at once."""


@dataclass(frozen=True, kw_only=True)
class ServingBackend(FakeBackend):
    """One that the gateway sends requests to."""

    def launch(self, plan: LaunchPlan) -> Launch:
        return replace(super().launch(plan), paths={STREAM: "/stream", QUICK: "/v1/ask"})


@dataclass
class Sink(Seen):
    """Tells the gateway too, as `slipway_runner.app` does."""

    gateway: Gateway | None = None

    def publish(self, model: Model) -> None:
        assert self.gateway is not None
        self.gateway.update(model.id, model)
        super().publish(model)

    def progress(self, model_id: str, uid: str, progress: LoadProgress) -> None:
        assert self.gateway is not None
        self.gateway.progress(model_id, progress)
        super().progress(model_id, uid, progress)

    def removed(self, model_id: str, uid: str) -> None:
        assert self.gateway is not None
        self.gateway.update(model_id, None)
        super().removed(model_id, uid)


@dataclass
class Runner:
    fleet: Fleet
    seen: Seen
    gateway: Gateway
    models: Path

    async def load(
        self,
        model_id: str = "m",
        *,
        activation: Activation = Activation.ALWAYS,
        evict: bool = False,
        **more: Any,
    ) -> Model:
        path = self.models / f"{model_id}.gguf"
        path.write_bytes(b"GGUF" + bytes(1000))
        spec = Spec(source=PathSource(path=path), **more)
        await self.fleet.load(spec, model_id, activation=activation, evict=evict)
        return await self.seen.state(State.LOADED, State.ERROR, model_id=model_id)


@asynccontextmanager
async def runner(
    root: Path, *, backend: FakeBackend | None = None, keep: bool = False, **more: Any
) -> AsyncIterator[Runner]:
    """One whose state lies in `root/state`; with `keep` its models and its gateway are left to the next one."""
    state, models = root / "state", root / "models"
    for folder in (state, models):
        folder.mkdir(exist_ok=True)
    async with open_gateway(state, Setup(listen=ListenAddress("127.0.0.1", 0)), keep=keep) as gateway:
        seen = Sink(gateway=gateway)
        async with open_fleet(
            state_dir=state,
            sink=seen,
            drain=gateway.drain,
            **{
                "backends": backends_of(backend or ServingBackend()),
                "devices": cpu,
                "paths": LocalPaths((models,)),
                "use_of": gateway.use,
                "wanted": gateway.wanted,
                "show_dormant": gateway.show_dormant,
                "numbers": replace(NUMBERS, drain=20.0),
                **more,
            },
        ) as fleet:
            gateway.complete()
            try:
                yield Runner(fleet, seen, gateway, models)
            finally:
                with anyio.CancelScope(shield=True):
                    await fleet.shutdown(keep_models=keep)


async def main() -> None:
    """Load, tell, and stay."""
    async with runner(Path(sys.argv[1])) as on:
        await on.load()
        await on.fleet.journal.flush()  # what a kill takes away no more
        print("SERVING", on.gateway.address, flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main)
