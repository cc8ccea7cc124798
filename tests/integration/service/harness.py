"""The toy service running inside a test, and as a process."""

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import grpc
from anyio.abc import Process
from google.rpc import status_pb2
from slipway.runner.v1 import model_service_pb2, model_service_pb2_grpc
from slipway_service import lifecycle
from slipway_service.eventlog import EventLog
from slipway_service.fault import Fault
from slipway_service.lifecycle import Host, Stop
from slipway_service.rpc_errors import STATUS_DETAILS_KEY, from_status
from slipway_service.watcher import DEFAULT_PACE, Pace

from tests.integration.service.toy import Toy, ToySettings, open_toy

PATIENCE = 45.0
"""Seconds that any single wait of a test may take before it has failed; nothing here takes a tenth of it."""

Batch = model_service_pb2.WatchModelsResponse


@dataclass(slots=True)
class Running:
    """A toy service in this process, and a channel to it."""

    host: Host
    toy: Toy
    channel: grpc.aio.Channel

    @property
    def models(self) -> "model_service_pb2_grpc.ModelServiceAsyncStub":
        return model_service_pb2_grpc.ModelServiceStub(self.channel)

    def open_channel(self, **options: Any) -> grpc.aio.Channel:
        """Another connection: channels with the same options would share one."""
        given = [("grpc.use_local_subchannel_pool", 1), *options.pop("options", ())]
        return grpc.aio.insecure_channel(str(self.host.address), options=given, **options)


@asynccontextmanager
async def running(
    state_dir: Path,
    *,
    pace: Pace = DEFAULT_PACE,
    log: EventLog | None = None,
    stop_limit: float = PATIENCE,
    **settings: Any,
) -> AsyncIterator[Running]:
    """Serve a toy until the block ends."""
    toys: list[Toy] = []

    @asynccontextmanager
    async def opener(host: Host) -> AsyncIterator[None]:
        async with open_toy(host, pace=pace, log=log) as toy:
            toys.append(toy)
            yield

    async with anyio.create_task_group() as tasks:
        stop = Stop()
        options = ToySettings(state_dir=state_dir, **{"drain_grace": 0.0, **settings})

        async def serve(*, task_status: anyio.abc.TaskStatus[Host]) -> None:
            await lifecycle.serve(options, opener, stop=stop, stop_limit=stop_limit, task_status=task_status)

        with anyio.fail_after(PATIENCE):
            host = await tasks.start(serve)
        async with grpc.aio.insecure_channel(str(host.address)) as channel:
            try:
                yield Running(host, toys[0], channel)
            finally:
                stop.ask()


@dataclass(slots=True)
class Program:
    """A toy service as a process of its own."""

    process: Process
    state_dir: Path
    stderr: Path
    address: str = ""
    addresses: dict[str, str] = field(default_factory=dict)

    def log_lines(self) -> list[dict[str, Any]]:
        """What it has logged; a line that is no JSON fails the test, since nothing else belongs on its stderr."""
        whole, _, _ = self.stderr.read_text().rpartition("\n")  # the last may be being written
        return [json.loads(line) for line in whole.splitlines()]

    async def ended(self) -> int:
        """Its exit code."""
        with anyio.fail_after(PATIENCE):
            return await self.process.wait()

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)


def toy_command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "tests.integration.service.toy", *arguments]


@asynccontextmanager
async def program(tmp_path: Path, *arguments: str) -> AsyncIterator[Program]:
    """Start the toy program and wait for its address file; killed when the block ends, if it still runs."""
    state_dir, stderr = tmp_path / "state", tmp_path / "stderr"
    command = toy_command("--state-dir", str(state_dir), "--log-format", "json", *arguments)
    with stderr.open("wb") as sink:
        process = await anyio.open_process(command, stdin=None, stdout=sink, stderr=sink, env={**os.environ})
    async with process:
        try:
            started = Program(process, state_dir, stderr)
            await _until_serving(started)
            yield started
        finally:
            if process.returncode is None:
                process.kill()


async def _until_serving(started: Program) -> None:
    await eventually(lambda: "serving" in started.stderr.read_text() or started.process.returncode is not None)
    assert started.process.returncode is None, started.stderr.read_text()
    started.address = (started.state_dir / "address").read_text().strip()
    started.addresses = json.loads((started.state_dir / "addresses.json").read_text())


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for something that the other side of a connection does in its own time."""
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nothing tells this side when it is so
            await anyio.sleep(0.01)


async def read(call: "grpc.aio.UnaryStreamCall[Any, Batch]") -> Batch:
    """The next batch of a watch."""
    with anyio.fail_after(PATIENCE):
        batch = await call.read()
    assert isinstance(batch, Batch), "the stream has ended"
    return batch


async def read_to_end(call: "grpc.aio.UnaryStreamCall[Any, Batch]") -> Sequence[Batch]:
    batches: list[Batch] = []
    with anyio.fail_after(PATIENCE):
        while isinstance(batch := await call.read(), Batch):
            batches.append(batch)
    return batches


def names(batch: Batch) -> list[str]:
    """What a batch says, in words: `+models/a`, `~models/a` for progress, `-models/a`."""
    said = []
    for event in batch.events:
        match event.WhichOneof("event"):
            case "model":
                said.append(f"+{event.model.name}")
            case "progress":
                said.append(f"~{event.progress.name}")
            case _:
                said.append(f"-{event.deleted.name}")
    return said


def fault_of(error: grpc.aio.AioRpcError) -> Fault:
    """What a failed call was refused for, from its details."""
    for key, value in error.trailing_metadata():
        if key == STATUS_DETAILS_KEY and isinstance(value, bytes):
            return from_status(status_pb2.Status.FromString(value))
    raise AssertionError("the error has no details")
