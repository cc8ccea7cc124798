# ruff: noqa: N802 - RPC methods have the names of the contract
"""A small service on the real contract, for tests of what carries every service.

As a program: `python -m tests.integration.service.toy serve --state-dir DIR`. Its models change by calls: LoadModel
appends a transition and UnloadModel a deletion; GetModel fails in the way that the model's name says.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar, NoReturn
from uuid import uuid4

import anyio
import anyio.to_thread
import grpc
from pydantic import Field
from slipway.common.v1 import watch_pb2
from slipway.runner.v1 import model_pb2, model_service_pb2, model_service_pb2_grpc
from slipway_service import lifecycle, options
from slipway_service.broadcast import Broadcast
from slipway_service.config import ServiceSettings
from slipway_service.eventlog import EventLog
from slipway_service.fault import Fault, Reason
from slipway_service.handlers import Context
from slipway_service.lifecycle import Host
from slipway_service.metrics import WatchMetrics
from slipway_service.values import Duration, Listen, ListenAddress
from slipway_service.watch_rpc import add_stream, add_watch
from slipway_service.watcher import DEFAULT_PACE, Pace
from slipway_service.wire import cursor_message, event_field

SERVICE = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
_LOCAL = ListenAddress("127.0.0.1", 0)

SECRET = "the text of an unexpected exception"


class ToySettings(ServiceSettings):
    """The toy's options."""

    program: ClassVar[str] = "slipway-toy"

    listen: Listen = Field(default=_LOCAL, description="Where gRPC is served.")
    metrics_listen: Listen = Field(default=_LOCAL, description="Where metrics are served.")
    state_dir: Path = Field(description="Where the toy keeps its addresses.")
    close_takes: Duration = Field(default=0.0, description="How long the toy takes to close.")


class Toy(model_service_pb2_grpc.ModelServiceServicer):
    """Models without anything behind them. What is not written here is left to the generated base."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.release = anyio.Event()
        self.waiting = anyio.Event()
        self.stalled = anyio.Event()
        self.left = anyio.Event()
        self.left_by: list[type[BaseException]] = []
        self.keeping = anyio.Lock()
        self.kept: list[str] = []

    async def LoadModel(
        self, request: model_service_pb2.LoadModelRequest, _context: Context
    ) -> model_service_pb2.LoadModelResponse:
        model = model_pb2.Model(name=f"models/{request.id}", uid=uuid4().hex)
        self.log.append(model.name, event_field(model_pb2.ModelEvent(model=model)), done=request.validate_only)
        return model_service_pb2.LoadModelResponse(model=model, cursor=cursor_message(self.log.cursor))

    async def UnloadModel(
        self, request: model_service_pb2.UnloadModelRequest, _context: Context
    ) -> model_service_pb2.UnloadModelResponse:
        gone = watch_pb2.Deleted(name=request.name)
        self.log.delete(request.name, event_field(model_pb2.ModelEvent(deleted=gone)))
        return model_service_pb2.UnloadModelResponse()

    async def GetModel(
        self, request: model_service_pb2.GetModelRequest, context: Context
    ) -> model_service_pb2.GetModelResponse:
        match request.name:
            case "models/fault":
                raise _absent(request.name)
            case "models/away":
                raise Fault(Reason.HUB_UNREACHABLE, "The Hub could not be reached.", retry_after=30.0)
            case "models/nested":
                await _in_task_groups(request.name)
            case "models/abort":
                async with anyio.create_task_group():
                    await context.abort(grpc.StatusCode.ALREADY_EXISTS, "aborted inside a task group")
            case "models/defect":
                raise RuntimeError(SECRET)
            case "models/two":
                await _two_defects()
            case "models/wait":
                self.waiting.set()
                await self.release.wait()
            case "models/cancelled":
                future = asyncio.get_running_loop().create_future()
                future.cancel()
                await future
            case "models/shielded":
                await self._keep(request.name)
        return model_service_pb2.GetModelResponse(cursor=cursor_message(self.log.cursor))

    async def _keep(self, name: str) -> None:
        """Something that is finished once it has begun, under a lock and in a thread; a cancellation sets `left`."""
        async with anyio.create_task_group() as tasks, self.keeping:
            tasks.start_soon(self._notice_leaving)
            with anyio.CancelScope(shield=True):
                self.waiting.set()
                await self.release.wait()
                await anyio.to_thread.run_sync(self.kept.append, name)
            tasks.cancel_scope.cancel()

    async def _notice_leaving(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.left.set()

    async def read_model_logs(self, request: model_service_pb2.ReadModelLogsRequest, context: Context) -> None:
        """Endless text, as many bytes a message as the offset says; from a task group, as real streams write.

        Of `models/cut` there is none, which is found while the first message is on its way.
        """
        if request.name == "models/cut":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(context.write, model_service_pb2.ReadModelLogsResponse(text="x"))
                await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            raise _absent(request.name)

        async def write() -> None:
            try:
                while True:
                    await context.write(model_service_pb2.ReadModelLogsResponse(text="x" * request.offset))
            except BaseException as error:
                self.left_by.append(type(error))
                raise

        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write)
        except* Fault:
            self.stalled.set()
            raise


@asynccontextmanager
async def open_toy(host: Host, *, pace: Pace = DEFAULT_PACE, log: EventLog | None = None) -> AsyncIterator[Toy]:
    """The toy as a service."""
    toy = Toy(log or EventLog(uuid4().hex))  # type: ignore[abstract] # the base answers for what is not built
    broadcast = Broadcast(toy.log, pace=pace, metrics=WatchMetrics(host.registry).of("models"))
    host.offer(SERVICE, model_service_pb2_grpc.add_ModelServiceServicer_to_server, toy)
    add_watch(host.server, SERVICE, "WatchModels", broadcast, collection="models")
    add_stream(host.server, SERVICE, "ReadModelLogs", toy.read_model_logs)
    host.on_drain(broadcast.drain)
    yield toy


@asynccontextmanager
async def _open_program(host: Host) -> AsyncIterator[None]:
    async with open_toy(host):
        yield
        assert isinstance(host.settings, ToySettings)
        await anyio.sleep(host.settings.close_takes)


def _absent(name: str) -> Fault:
    return Fault(Reason.MODEL_NOT_FOUND, f"There is no model {name}. ListModels has those there are.", resource=name)


async def _in_task_groups(name: str) -> NoReturn:
    async with anyio.create_task_group(), anyio.create_task_group():
        raise _absent(name)
    raise AssertionError


async def _two_defects() -> None:
    async def fail() -> None:
        raise RuntimeError(SECRET)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fail)
        tasks.start_soon(fail)


def main() -> None:
    serve = options.command(
        ToySettings,
        # One that takes its time to close is to be left behind soon, all others never.
        lambda settings: lifecycle.run(settings, _open_program, stop_limit=1.0 if settings.close_takes else 60.0),
        name="serve",
        help="Serve.",
    )
    options.main(serve, name="slipway-toy")


if __name__ == "__main__":
    main()
