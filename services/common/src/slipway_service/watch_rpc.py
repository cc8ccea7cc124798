"""Watch methods on the wire: a request becomes a `Watch`, batches go out as bytes.

Watch methods, like all server streams, are registered by hand, after the generated servicer (the later registration
wins): batches are bytes already, and generated types know no coroutine for a stream.
"""

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from slipway.common.v1 import watch_pb2

from slipway_service import wire
from slipway_service.broadcast import Broadcast
from slipway_service.eventlog import Cursor, Filter
from slipway_service.handlers import Behaviour, Context
from slipway_service.validation import Fields, ResourceName
from slipway_service.watcher import Batch, Watch

MOST_NAMES = 1000
"""Names in one request, as the contract says: more of them is everything, which needs no names."""


def add_watch(
    server: grpc.aio.Server,
    service: ServiceDescriptor,
    method: str,
    broadcast: Broadcast,
    *,
    collection: str,
    label: Callable[[Any], str | None] = lambda _request: None,
) -> None:
    """Serve a Watch method from a log.

    Args:
        server: not yet started; the generated servicer is already added.
        service: `model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]`.
        method: `WatchModels`.
        broadcast: the log's.
        collection: `models`, the part before the slash of its resources' names.
        label: the label that the request filters by, if it has such a field; None for all.

    Raises:
        TypeError: the method's response is not the batch that all watches have.
    """
    wire.check_batch(service.methods_by_name[method].output_type)

    async def serve(request: Any, context: Context) -> None:
        watch = parse_watch(request, collection=collection, label=label(request))

        async def write(batch: Batch) -> None:
            await context.write(wire.batch(batch))

        await broadcast.serve(watch, write)

    add_stream(server, service, method, serve, raw=True)


def add_stream(
    server: grpc.aio.Server,
    service: ServiceDescriptor,
    method: str,
    behaviour: Behaviour,
    *,
    raw: bool = False,
) -> None:
    """Serve a server-streaming method by a coroutine that writes to its context.

    Never by an async generator: a cancelled call would run its `finally` in another task. A `raw` one writes bytes.
    """
    described = service.methods_by_name[method]
    request, response = GetMessageClass(described.input_type), GetMessageClass(described.output_type)
    serializer = None if raw else response.SerializeToString
    handler = grpc.unary_stream_rpc_method_handler(behaviour, request.FromString, serializer)
    server.add_registered_method_handlers(service.full_name, {method: handler})


def parse_watch(request: Any, *, collection: str, label: str | None = None) -> Watch:
    """What a Watch request asks for.

    Raises:
        Fault: INVALID_FIELDS.
    """
    fields = request.DESCRIPTOR.fields_by_name
    timed = "min_progress_interval" in fields and request.HasField("min_progress_interval")
    interval = request.min_progress_interval.ToNanoseconds() if timed else None
    until_done = "until_done" in fields and request.until_done
    with Fields() as found:
        found.check("names", len(request.names) <= MOST_NAMES, f"must be at most {MOST_NAMES}")
        names = found.parse_all("names", ResourceName.of(collection), request.names[:MOST_NAMES])
        found.check("names", bool(names) or not until_done, "must be given with until_done")
        found.check("min_progress_interval", interval is None or interval >= 0, "must not be negative")
    return Watch(
        wanted=Filter(collection=f"{collection}/", names=frozenset(map(str, names)), label=label),
        after=_cursor(request.after) if request.HasField("after") else None,
        min_progress_interval=None if interval is None else interval / 1e9,
        until_done=until_done,
    )


def _cursor(message: watch_pb2.Cursor) -> Cursor:
    return Cursor(epoch=message.epoch, revision=message.revision)
