"""What happens around every call: its request id, its errors as statuses, one log line, its metrics.

This is the only place that aborts a call. Handlers and the domain raise `Fault`; an abort inside a task group would
reach grpc.aio as an ExceptionGroup and be logged as a defect.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast
from uuid import uuid4

import anyio
import grpc
import structlog

from slipway_service import handlers
from slipway_service.fault import Fault, Reason
from slipway_service.groups import unwrapped
from slipway_service.handlers import Behaviour, Context, Handler
from slipway_service.rpc_errors import CODES, STATUS_DETAILS_KEY, to_status
from slipway_service.rpc_metrics import UNKNOWN_METHOD, Method, RpcMetrics, go_name
from slipway_service.streaming import STALL_LIMIT, StreamContext

REQUEST_ID_KEY = "x-request-id"
"""Metadata: sent by a caller to find its call in our log, and always sent back in the trailing metadata."""

_NO_RETRY = ("grpc-retry-pushback-ms", "-1")
"""Trailing metadata that keeps a channel's own retry policy from repeating an UNAVAILABLE that is considered.

Without it a client asks three times, within a second, for a Hub that is away (gRFC A6, "Pushback"). Only DRAINING is
worth that: another process is about to answer.
"""

_SANE_ID = re.compile(r"[A-Za-z0-9._:/-]{1,128}")

_DEFECTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}
_QUIET = {"grpc.health.v1.Health"}
"""Services whose calls are logged at debug level: probes come every few seconds."""

log = structlog.stdlib.get_logger("slipway.rpc")


class Calls(grpc.aio.ServerInterceptor):
    """The outermost interceptor of every server."""

    def __init__(self, metrics: RpcMetrics, *, stall_limit: float = STALL_LIMIT) -> None:
        self._metrics = metrics
        self._stall_limit = stall_limit

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wrap the handler of a call; a method that there is not gets one that says so."""
        handler = await continuation(handler_call_details)
        if handler is None:
            handler, method = handlers.UNKNOWN, UNKNOWN_METHOD
        else:
            method = Method.parse(handler_call_details.method, handlers.kind(handler))
        behave = handlers.behaviour(handler)

        async def call(request: Any, context: Context) -> Any:
            return await self._call(handler, method, behave, request, context)

        return handlers.rebuilt(handler, call)

    async def _call(self, handler: Handler, method: Method, behave: Behaviour, request: Any, context: Context) -> Any:
        request_id = _request_id(context)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
        peer = context.peer()
        began = time.monotonic()
        self._metrics.started(method)
        fault: Fault | None = None
        response: Any = None
        code = grpc.StatusCode.UNKNOWN
        try:
            response = await _scoped(partial(self._behave, handler, method, behave, request, context))
            code = context.code() or grpc.StatusCode.OK
        except asyncio.CancelledError:
            code = _cancelled_code(context)
            raise
        except Exception as raised:
            leaf = unwrapped(raised)
            if isinstance(leaf, grpc.aio.AbortError | grpc.aio.InternalError):
                # aborted by the handler, or the client left while it was written to: grpc.aio knows both by their type
                code = context.code() or grpc.StatusCode.CANCELLED
                raise leaf from None
            fault = _as_fault(leaf, raised)
            code = CODES[fault.reason]
        finally:
            seconds = time.monotonic() - began
            self._metrics.handled(method, code, seconds)
            _log_call(method, code, fault, seconds, peer)
        if fault is not None:
            await _abort(context, fault, request_id)
        return response

    async def _behave(self, handler: Handler, method: Method, behave: Behaviour, request: Any, context: Context) -> Any:
        if not handler.request_streaming:
            self._metrics.received(method)
        parsed = handlers.parse(handler, request)
        if handler.response_streaming:
            stream = StreamContext(context, sent=lambda: self._metrics.sent(method), stall_limit=self._stall_limit)
            return await behave(parsed, cast("Context", stream))
        response = await behave(parsed, context)
        self._metrics.sent(method)
        return response


async def _scoped(behave: Callable[[], Awaitable[Any]]) -> Any:
    """Do it in a scope of its own, which a cancellation of the task cancels; return or raise when it has ended.

    grpc.aio cancels a task, and anyio's shields, those of its threads too, hold off nothing but cancelled scopes: what
    a handler has begun to store would be stored behind its back, and its locks would be free meanwhile.

    Raises:
        RuntimeError: it was cancelled, and the call is not.
    """
    responses: list[Any] = []

    async def run() -> None:
        responses.append(await behave())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
    if not responses:
        raise RuntimeError("something that the handler waited for was cancelled by others")
    return responses[0]


async def _abort(context: Context, fault: Fault, request_id: str) -> None:
    status = to_status(fault, request_id=request_id)
    metadata = ((STATUS_DETAILS_KEY, status.SerializeToString()), (REQUEST_ID_KEY, request_id))
    final = () if fault.reason is Reason.DRAINING else (_NO_RETRY,)
    try:
        await context.abort(CODES[fault.reason], status.message, (*metadata, *final))
    except grpc.aio.InternalError:
        return  # the client left meanwhile; grpc.aio ends the call by the abort it has noted


def _as_fault(leaf: BaseException, raised: BaseException) -> Fault:
    if isinstance(leaf, Fault):
        return leaf
    log.error("unexpected exception", exc_info=raised)
    return Fault(Reason.INTERNAL, "internal error")


def _request_id(context: Context) -> str:
    given = dict(context.invocation_metadata() or ()).get(REQUEST_ID_KEY)
    return given if isinstance(given, str) and _SANE_ID.fullmatch(given) else uuid4().hex


def _cancelled_code(context: Context) -> grpc.StatusCode:
    """grpc.aio cancels the task both when the client cancels and when its deadline passes."""
    if context.time_remaining() == 0:
        return grpc.StatusCode.DEADLINE_EXCEEDED
    return grpc.StatusCode.CANCELLED


def _log_call(method: Method, code: grpc.StatusCode, fault: Fault | None, seconds: float, peer: str) -> None:
    write = log.error if code in _DEFECTS else log.debug if method.service in _QUIET else log.info
    why = {} if fault is None else {"reason": str(fault.reason), "text": fault.text}
    name = f"{method.service}/{method.name}"
    write("call", method=name, code=go_name(code), seconds=round(seconds, 4), peer=peer, **why)
