"""Method handlers of grpc.aio, whatever their kind, as one shape: a coroutine function of request and context.

grpc.aio tells the kinds of handlers apart by inspecting the function, so what an interceptor returns has to be a plain
nested `async def`: a callable object or a partial would be taken for a synchronous generator.
"""

import inspect
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import grpc
from google.protobuf.message import DecodeError

from slipway_service.fault import Fault, Reason

if TYPE_CHECKING:  # generic in their stubs only
    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
else:
    Context = grpc.aio.ServicerContext
    Handler = grpc.RpcMethodHandler

Behaviour: TypeAlias = Callable[[Any, Context], Awaitable[Any]]

_UNARY, _CLIENT, _SERVER, _BIDI = "unary", "client_stream", "server_stream", "bidi_stream"


def kind(handler: Handler) -> str:
    """`unary`, `client_stream`, `server_stream` or `bidi_stream`, as metrics call them."""
    if handler.request_streaming:
        return _BIDI if handler.response_streaming else _CLIENT
    return _SERVER if handler.response_streaming else _UNARY


def behaviour(handler: Handler) -> Behaviour:
    """What the handler does, as a coroutine function; streams write to the context.

    An async generator is consumed in the call's own task and closed there: left to grpc.aio, its `finally` would run
    in another task after a cancellation, which no cancel scope survives.
    A synchronous function is a generated base method, which says that it is not implemented.
    """
    inner: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    if inspect.iscoroutinefunction(inner):
        return cast("Behaviour", inner)

    if inspect.isasyncgenfunction(inner):

        async def write_all(request: Any, context: Context) -> None:
            async with aclosing(inner(request, context)) as messages:
                async for message in messages:
                    await context.write(message)

        return write_all

    async def not_built(_request: Any, _context: Context) -> None:
        raise Fault(Reason.NOT_IMPLEMENTED, "This build does not serve the method.")

    return not_built


def rebuilt(handler: Handler, behave: Behaviour) -> Handler:
    """The handler with another behaviour. Unary requests reach it as bytes: see `parse`."""

    async def call(request: Any, context: Context) -> Any:
        return await behave(request, context)

    match kind(handler):
        case "unary":
            return grpc.unary_unary_rpc_method_handler(call, None, handler.response_serializer)
        case "server_stream":
            return grpc.unary_stream_rpc_method_handler(call, None, handler.response_serializer)
        case "client_stream":
            return grpc.stream_unary_rpc_method_handler(call, handler.request_deserializer, handler.response_serializer)
        case _:
            return grpc.stream_stream_rpc_method_handler(
                call, handler.request_deserializer, handler.response_serializer
            )


def parse(handler: Handler, request: Any) -> Any:
    """The request message. Streams of requests, which grpc.aio deserialises itself, pass through.

    Raises:
        Fault: INVALID_FIELDS, for bytes that are no such message; grpc.aio would answer UNKNOWN with the exception.
    """
    if handler.request_streaming or handler.request_deserializer is None:
        return request
    try:
        return handler.request_deserializer(request)
    except DecodeError:
        raise Fault(Reason.INVALID_FIELDS, "The request is not a message of the method's type.") from None


async def _refuse(_request: Any, _context: Context) -> None:
    raise Fault(Reason.NOT_IMPLEMENTED, "This server has no such method. Reflection lists those it has.")


UNKNOWN: Handler = grpc.stream_stream_rpc_method_handler(_refuse)
"""What answers a method that no service has. A bidirectional stream, since it may be called as any kind."""
