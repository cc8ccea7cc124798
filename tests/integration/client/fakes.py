"""Registry and runner as far as a client sees them: real servers on loopback that answer what a test has scripted."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import anyio
import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2
from slipway.registry.v1 import catalog_service_pb2, download_service_pb2, snapshot_service_pb2
from slipway.runner.v1 import model_service_pb2, runner_service_pb2

from tests.hub.origin import bound

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    service
    for file in (
        catalog_service_pb2,
        download_service_pb2,
        snapshot_service_pb2,
        model_service_pb2,
        runner_service_pb2,
        health_pb2,
    )
    for service in file.DESCRIPTOR.services_by_name.values()
)


@dataclass(frozen=True)
class Failure:
    """A call fails with this status, as a Slipway service sends it when it has a reason."""

    code: grpc.StatusCode
    text: str = "scripted"
    reason: str = ""
    details: tuple[Message, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()

    def status(self) -> Status:
        message = f"{self.reason}: {self.text}" if self.reason else self.text
        status = Status(code=self.code.value[0], message=message)
        own = (ErrorInfo(reason=self.reason, domain="slipway"),) if self.reason else ()
        for detail in (*own, *self.details):
            status.details.add().Pack(detail)
        return status

    async def abort(self, context: Context) -> None:
        status = self.status()
        packed = (("grpc-status-details-bin", status.SerializeToString()),) if status.details else ()
        await context.abort(self.code, status.message, (*packed, *self.metadata))


Handler: TypeAlias = Callable[[Any, Context], Awaitable[Message | None]]
Answer: TypeAlias = Message | Failure | Handler
StreamItem: TypeAlias = Message | Failure | anyio.Event
"""A message to write, an end, or something to wait for."""


@dataclass
class Call:
    """A call that was made."""

    method: str
    request: Any
    metadata: dict[str, str]
    time_remaining: float | None


@dataclass
class FakeService:
    """Answers by method name: `answers` for unary calls, again and again; `streams` one after the other."""

    answers: dict[str, Answer] = field(default_factory=dict)
    streams: dict[str, list[Sequence[StreamItem]]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    address: str = ""
    server: grpc.aio.Server | None = None

    def requests(self, method: str) -> list[Any]:
        return [call.request for call in self.calls if call.method == method]

    async def start(self, port: int = 0) -> None:
        self.server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        self.register(self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port(f'127.0.0.1:{port}')}"
        await self.server.start()

    def register(self, server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers([self._handlers(service) for service in SERVICES])

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.stop(None)

    def _handlers(self, service: ServiceDescriptor) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            service.full_name, {method.name: self._handler(method) for method in service.methods}
        )

    def _handler(self, method: MethodDescriptor) -> "grpc.RpcMethodHandler[Any, Any]":
        parse = GetMessageClass(method.input_type).FromString

        async def unary(request: Any, context: Context) -> Any:
            self._note(method.name, request, context)
            answer = self.answers.get(method.name, Failure(grpc.StatusCode.UNIMPLEMENTED, reason="NOT_IMPLEMENTED"))
            if isinstance(answer, Failure):
                await answer.abort(context)
            return answer if isinstance(answer, Message) else await answer(request, context)  # type: ignore[operator]

        async def stream(request: Any, context: Context) -> None:
            self._note(method.name, request, context)
            script = self.streams[method.name].pop(0)
            for item in script:
                if isinstance(item, anyio.Event):
                    await item.wait()
                elif isinstance(item, Failure):
                    await item.abort(context)
                else:
                    await context.write(item)

        make = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        behaviour: Any = stream if method.server_streaming else unary
        return make(behaviour, parse, lambda message: message.SerializeToString())

    def _note(self, method: str, request: Any, context: Context) -> None:
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        self.calls.append(Call(method, request, metadata, context.time_remaining()))


@contextmanager
def nobody() -> Iterator[str]:
    """An address where nobody listens, nor comes to listen during the block."""
    with bound(0) as silent:
        yield f"127.0.0.1:{silent.getsockname()[1]}"


@asynccontextmanager
async def serving(*services: FakeService) -> AsyncIterator[None]:
    """Runs fakes for the length of the block."""
    for service in services:
        await service.start()
    try:
        yield
    finally:
        for service in services:
            await service.stop()
