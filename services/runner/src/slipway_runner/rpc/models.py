"""slipway.runner.v1.ModelService: each method checks its request, calls the fleet, converts the answer."""

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from slipway.runner.v1 import model_service_pb2 as pb
from slipway.runner.v1 import model_service_pb2_grpc
from slipway_service.broadcast import Broadcast
from slipway_service.fault import Fault, Reason
from slipway_service.handlers import Context
from slipway_service.lifecycle import Host
from slipway_service.pages import fill_page
from slipway_service.paging import PageTokens
from slipway_service.validation import Fields, PageSize, resource_id
from slipway_service.watch_rpc import add_stream, add_watch
from slipway_service.wire import cursor_message

from slipway_runner.models.fleet import Fleet
from slipway_runner.models.record import Model
from slipway_runner.rpc import from_proto, to_proto
from slipway_runner.rpc.logs import LogReader

SERVICE = pb.DESCRIPTOR.services_by_name["ModelService"]

_NONE_ACTIVE = "none"
"""What `expected_active` says for: nothing must be active."""


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Models on this host.

    Args:
        fleet: what is called.
        broadcast: of the log that the fleet's events go to.
        endpoint: the gateway's base URL.
        logs: reads the backends' logs.
    """

    WatchModels: Any  # streams are registered by hand, as `watch_rpc` says why
    ReadModelLogs: Any

    def __init__(self, fleet: Fleet, broadcast: Broadcast, *, endpoint: Callable[[], str], logs: LogReader) -> None:
        self._fleet = fleet
        self._broadcast = broadcast
        self._endpoint = endpoint
        self._logs = logs
        self._tokens = PageTokens()

    def offer(self, host: Host) -> None:
        """Serve this on a host."""
        host.offer(SERVICE, model_service_pb2_grpc.add_ModelServiceServicer_to_server, self)
        add_watch(host.server, SERVICE, "WatchModels", self._broadcast, collection="models")
        add_stream(host.server, SERVICE, "ReadModelLogs", self._read_logs)

    async def LoadModel(self, request: pb.LoadModelRequest, context: Context) -> pb.LoadModelResponse:
        with Fields() as fields:
            model_id = fields.parse("id", resource_id, request.id) if request.id else ""
            spec = from_proto.spec(request.spec, fields.under("spec"))
            activation = fields.parse("activation", from_proto.activation, request.activation)
            if not request.id and request.spec.WhichOneof("source"):
                fields.parse("id", resource_id, spec.default_id)
            replaces = fields.parse("replaces", from_proto.MODEL_NAME, request.replaces).id if request.replaces else ""
            fields.check("unload_first", bool(replaces) or not request.unload_first, "must be given with replaces")
        loaded = await self._fleet.load(
            spec,
            model_id,
            activation=activation,
            evict=request.evict,
            replaces=replaces,
            unload_first=request.unload_first,
            validate_only=request.validate_only,
        )
        return pb.LoadModelResponse(
            model=self._message(loaded.model),
            cursor=self._cursor(),
            existing=loaded.existing,
            evicted=[to_proto.MODEL_PREFIX + model_id for model_id in loaded.evicted],
        )

    async def UnloadModel(self, request: pb.UnloadModelRequest, context: Context) -> pb.UnloadModelResponse:
        with Fields() as fields:
            name = fields.parse("name", from_proto.MODEL_NAME, request.name)
            drain = fields.parse("drain_timeout", from_proto.seconds, request.drain_timeout)
        self._check_etag(name.id, request.etag)
        model = self._fleet.unload(name.id, drain_seconds=drain if request.HasField("drain_timeout") else None)
        return pb.UnloadModelResponse(model=self._message(model), cursor=self._cursor())

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        with Fields() as fields:
            name = fields.parse("name", from_proto.MODEL_NAME, request.name)
        return pb.GetModelResponse(model=self._message(self._fleet.get(name.id)), cursor=self._cursor())

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        with Fields() as fields:
            size = fields.parse("page_size", PageSize.parse, request.page_size)
            states = fields.parse_all("states", from_proto.state, request.states)
        after = self._tokens.open(request.page_token, request) or ""
        matching = (
            message
            for model in self._fleet.list()
            if model.id > after and (message := self._message(model)).state in (states or [message.state])
        )
        models, more = fill_page(matching, size)
        token = self._tokens.seal(models[-1].name.removeprefix(to_proto.MODEL_PREFIX), request) if more else ""
        return pb.ListModelsResponse(models=models, next_page_token=token, cursor=self._cursor())

    async def SetActiveModel(self, request: pb.SetActiveModelRequest, context: Context) -> pb.SetActiveModelResponse:
        expected: str | None = None
        with Fields() as fields:
            name = fields.parse("name", from_proto.MODEL_NAME, request.name)
            task = fields.parse("task", from_proto.task, request.task)
            if request.expected_active == _NONE_ACTIVE:
                expected = ""
            elif request.expected_active:
                expected = fields.parse("expected_active", from_proto.MODEL_NAME, request.expected_active).id
        before = self._fleet.set_active(name.id, task=task, expected=expected)
        return pb.SetActiveModelResponse(
            model=self._message(self._fleet.get(name.id)),
            previous=to_proto.MODEL_PREFIX + before if before else "",
            cursor=self._cursor(),
        )

    async def GetActiveModel(self, request: pb.GetActiveModelRequest, context: Context) -> pb.GetActiveModelResponse:
        with Fields() as fields:
            task = fields.parse("task", from_proto.task, request.task)
        model = self._fleet.active(task or from_proto.DEFAULT_TASK)
        return pb.GetActiveModelResponse(model=self._message(model), cursor=self._cursor())

    async def _read_logs(self, request: pb.ReadModelLogsRequest, context: Any) -> None:
        with Fields() as fields:
            name = fields.parse("name", from_proto.MODEL_NAME, request.name)
        offset = request.offset if request.HasField("offset") else None
        async with aclosing(self._logs.read(name.id, offset, follow=request.follow)) as pieces:
            async for piece in pieces:
                await context.write(
                    pb.ReadModelLogsResponse(offset=piece.offset, text=piece.text, next_offset=piece.next_offset)
                )

    def _message(self, model: Model) -> Any:
        return to_proto.model(model, endpoint=self._endpoint())

    def _cursor(self) -> Any:
        return cursor_message(self._broadcast.log.cursor)

    def _check_etag(self, model_id: str, etag: str) -> None:
        if etag and etag != (found := to_proto.etag(self._fleet.get(model_id))):
            raise Fault(Reason.ETAG_MISMATCH, f"{model_id} has etag {found} by now; read it again and decide anew")
