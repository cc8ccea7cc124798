"""Calls of ModelService: models on one host."""

from collections.abc import AsyncIterator, Iterable

from slipway.common.v1.task_pb2 import Task
from slipway.common.v1.watch_pb2 import Cursor
from slipway.runner.v1.model_pb2 import Model, ModelProgressUpdate, ModelSpec, ModelState
from slipway.runner.v1.model_service_pb2 import (
    Activation,
    GetActiveModelRequest,
    GetActiveModelResponse,
    GetModelRequest,
    GetModelResponse,
    ListModelsRequest,
    ListModelsResponse,
    LoadModelRequest,
    LoadModelResponse,
    ReadModelLogsRequest,
    ReadModelLogsResponse,
    SetActiveModelRequest,
    SetActiveModelResponse,
    UnloadModelRequest,
    UnloadModelResponse,
    WatchModelsRequest,
)
from slipway.runner.v1.model_service_pb2_grpc import ModelServiceStub

from slipway_client.backoff import Backoff
from slipway_client.client import Client, collect, duration, resource_name, resource_names, versions
from slipway_client.connection import Connection
from slipway_client.error_details import from_status
from slipway_client.errors import NotFound, SlipwayError
from slipway_client.events import Kind
from slipway_client.watch import OnDisconnect, Watch, ignore_disconnect, is_resumable
from slipway_client.words import value


def _with_progress(model: Model, update: ModelProgressUpdate) -> Model:
    changed = Model()
    changed.CopyFrom(model)
    changed.load_progress.CopyFrom(update.load_progress)
    return changed


MODELS: Kind[Model, ModelProgressUpdate] = Kind("model", _with_progress)


CLOSELY = 0.05
"""Seconds between two batches of progress for who follows one load: the least that runners give. Small weights are read
within a quarter of a second, and their shards would otherwise go unseen."""


class ModelCalls(Client):
    """Models: load, watch, choose, stop. They are named by `models/{id}` or by the id alone."""

    def __init__(self, connection: Connection, *, backoff: Backoff | None = None) -> None:
        super().__init__(connection, backoff=backoff)
        self._models = ModelServiceStub(connection.channel)

    async def load_model(
        self,
        spec: ModelSpec,
        *,
        model_id: str = "",
        activation: str = "",
        evict: bool = False,
        replaces: str = "",
        unload_first: bool = False,
        validate_only: bool = False,
    ) -> LoadModelResponse:
        """Starts a load, or joins the one there is; answers at once. See `model_spec` and `load`.

        Args:
            spec: what to run.
            model_id: empty for the last part of the repository's name.
            activation: `always` (the default), `if-none` or `never`: whether it becomes its task's active model.
            evict: other models may be unloaded to make room.
            replaces: a model to switch from.
            unload_first: with `replaces`: unload that one first where both do not fit.
            validate_only: say what would be run, and change nothing.

        Raises:
            ValueError: `activation` is no such word.
            SlipwayError: as `LoadModel` of model_service.proto lists.
        """
        request = LoadModelRequest(
            id=model_id,
            spec=spec,
            activation=value(Activation, activation),
            evict=evict,
            replaces=resource_name("models", replaces) if replaces else "",
            unload_first=unload_first,
            validate_only=validate_only,
        )
        return await self._models.LoadModel(request)

    async def unload_model(
        self, name: str, *, drain_timeout: float | None = None, etag: str = ""
    ) -> UnloadModelResponse:
        """Begins to stop a model; answers at once. Requests in flight have `drain_timeout` seconds (None: 30).

        Raises:
            SlipwayError: MODEL_NOT_FOUND, ETAG_MISMATCH.
        """
        request = UnloadModelRequest(
            name=resource_name("models", name), drain_timeout=duration(drain_timeout), etag=etag
        )
        return await self._models.UnloadModel(request)

    async def get_model(self, name: str) -> GetModelResponse:
        """Reads a model.

        Raises:
            SlipwayError: MODEL_NOT_FOUND.
        """
        return await self._models.GetModel(GetModelRequest(name=resource_name("models", name)))

    async def list_models(self, *, states: Iterable[str] = ()) -> list[Model]:
        """All models by id; `states` are words such as `loaded`.

        Raises:
            ValueError: a state is no such word.
        """
        request = ListModelsRequest(states=[value(ModelState, state) for state in states])

        async def page(token: str) -> ListModelsResponse:
            request.page_token = token
            return await self._models.ListModels(request)

        return await collect(page, lambda page: page.models)

    def watch_models(
        self,
        names: Iterable[str] = (),
        *,
        after: Cursor | None = None,
        known: Iterable[Model] = (),
        until_done: bool = False,
        min_progress_interval: float | None = None,
        on_disconnect: OnDisconnect = ignore_disconnect,
    ) -> Watch[Model, ModelProgressUpdate]:
        """Every transition of these models (of all, when none is named) exactly once, and the newest progress.

        Arguments as those of `Registry.watch_downloads`; done is: LOADED, ERROR, UNLOADED or gone.
        """
        request = WatchModelsRequest(
            names=resource_names("models", names),
            until_done=until_done,
            min_progress_interval=duration(min_progress_interval),
        )
        return self._watch(
            self._models.WatchModels,
            request,
            MODELS,
            after=after,
            known=known,
            until_done=until_done,
            on_disconnect=on_disconnect,
        )

    async def load(
        self,
        spec: ModelSpec,
        *,
        model_id: str = "",
        activation: str = "",
        evict: bool = False,
        on_disconnect: OnDisconnect = ignore_disconnect,
    ) -> AsyncIterator[Model]:
        """Starts or joins a load and yields the model with every change; the last one is LOADED.

        Leaving early leaves the load running.

        Raises:
            SlipwayError: as `load_model`, and what the load itself failed of.
        """
        answer = await self.load_model(spec, model_id=model_id, activation=activation, evict=evict)
        async for model in self.follow_load(answer.model, answer.cursor, on_disconnect=on_disconnect):
            yield model

    async def follow_load(
        self, model: Model, cursor: Cursor, *, on_disconnect: OnDisconnect = ignore_disconnect
    ) -> AsyncIterator[Model]:
        """A model from an answer, and then with every change, until it is LOADED; see `load`."""
        done = {ModelState.MODEL_STATE_LOADED, ModelState.MODEL_STATE_ERROR, ModelState.MODEL_STATE_UNLOADED}
        watch = self.watch_models(
            [model.name],
            after=cursor,
            known=[model],
            until_done=True,
            min_progress_interval=CLOSELY,
            on_disconnect=on_disconnect,
        )
        async for model in versions(model, watch, lambda model: model.state in done):
            yield model
        if model.state == ModelState.MODEL_STATE_ERROR:
            raise from_status(model.error)
        if model.state != ModelState.MODEL_STATE_LOADED:
            raise NotFound("MODEL_NOT_FOUND", f"{model.name} was unloaded before it was loaded")

    async def unload(
        self,
        name: str,
        *,
        drain_timeout: float | None = None,
        on_disconnect: OnDisconnect = ignore_disconnect,
    ) -> AsyncIterator[Model]:
        """Stops a model and yields it with every change, until its processes and its memory are gone.

        Raises:
            SlipwayError: as `unload_model`, and LEAKED: something of it remains.
        """
        answer = await self.unload_model(name, drain_timeout=drain_timeout)
        model = answer.model
        done = {ModelState.MODEL_STATE_UNLOADED, ModelState.MODEL_STATE_ERROR}
        watch = self.watch_models(
            [model.name], after=answer.cursor, known=[model], until_done=True, on_disconnect=on_disconnect
        )
        async for model in versions(model, watch, lambda model: model.state in done):
            yield model
        if model.state == ModelState.MODEL_STATE_ERROR:
            raise from_status(model.error)

    async def read_logs(
        self,
        name: str,
        *,
        offset: int | None = None,
        follow: bool = False,
        on_disconnect: OnDisconnect = ignore_disconnect,
    ) -> AsyncIterator[ReadModelLogsResponse]:
        """Pieces of a backend's log, each behind the one before.

        Args:
            name: the model.
            offset: byte to begin at; negative counts from the end; None means the last 64 KiB.
            follow: go on with what is written until the model is gone, also when the runner is restarted.
            on_disconnect: told of each lost stream of a log that is followed.

        Raises:
            SlipwayError: MODEL_NOT_FOUND, LOG_OFFSET_INVALID; UNAVAILABLE before the first piece.
        """
        request = ReadModelLogsRequest(name=resource_name("models", name), offset=offset, follow=follow)
        failures, begun = 0, False
        while True:
            stream = self.connection.stream(self._models.ReadModelLogs, request)
            try:
                async for piece in stream:
                    failures, begun = 0, True
                    request.offset = piece.next_offset
                    yield piece
                return
            except SlipwayError as error:
                if not (follow and begun and is_resumable(error)):
                    raise
                failures += 1
                delay = self.backoff.delay(failures, at_least=error.retry_after or 0.0)
                on_disconnect(error, delay)
            finally:
                stream.close()
            await self.backoff.sleep(delay)

    async def set_active_model(self, name: str, *, task: str = "", expected_active: str = "") -> SetActiveModelResponse:
        """Makes a LOADED model the one that requests without a model go to.

        Args:
            name: the model.
            task: `generate`, `embed` or `rerank`; empty for the model's own.
            expected_active: act only if this model is active now, or none with the word `none`.

        Raises:
            ValueError: `task` is no such word.
            SlipwayError: MODEL_NOT_FOUND, MODEL_NOT_LOADED, ACTIVE_MISMATCH, INVALID_FIELDS.
        """
        if expected_active not in ("", "none"):
            expected_active = resource_name("models", expected_active)
        request = SetActiveModelRequest(
            name=resource_name("models", name), task=value(Task, task), expected_active=expected_active
        )
        return await self._models.SetActiveModel(request)

    async def get_active_model(self, *, task: str = "") -> GetActiveModelResponse:
        """The active model of a task; `generate` when none is named.

        Raises:
            ValueError: `task` is no such word.
            SlipwayError: NO_ACTIVE_MODEL.
        """
        return await self._models.GetActiveModel(GetActiveModelRequest(task=value(Task, task)))
