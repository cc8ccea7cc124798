"""Downloads and models as the fakes show them, and fakes that take them through their states."""

import anyio
import grpc
from google.protobuf.message import Message
from slipway.common.v1.task_pb2 import Task
from slipway.common.v1.watch_pb2 import Cursor
from slipway.registry.v1.download_pb2 import (
    Download,
    DownloadEvent,
    DownloadProgress,
    DownloadProgressUpdate,
    DownloadState,
)
from slipway.registry.v1.download_service_pb2 import (
    CreateDownloadResponse,
    WatchDownloadsResponse,
)
from slipway.registry.v1.selection_pb2 import SelectedFiles
from slipway.runner.v1.model_pb2 import (
    LoadProgress,
    LoadStage,
    Model,
    ModelEvent,
    ModelProgressUpdate,
    ModelSpec,
    ModelState,
    RepoSource,
)
from slipway.runner.v1.model_service_pb2 import (
    LoadModelResponse,
    WatchModelsResponse,
)

from tests.integration.client.fakes import Failure, FakeService

COMMIT = "1a2b3c4d" * 5
NO_MODEL = Failure(grpc.StatusCode.NOT_FOUND, "there is no such model", "MODEL_NOT_FOUND")


def at(revision: int) -> Cursor:
    return Cursor(epoch="e", revision=revision)


def download(state: str, done: int = 0, **fields: object) -> Download:
    return Download(
        name="downloads/7f",
        uid="u7",
        repo_id="org/m",
        revision="main",
        commit=COMMIT,
        state=DownloadState.Value(f"DOWNLOAD_STATE_{state}"),
        files=SelectedFiles(paths=["a", "b"], size_bytes=5_000_000_000, variant="Q4_K_M"),
        progress=DownloadProgress(done_bytes=done, total_bytes=5_000_000_000),
        **fields,  # type: ignore[arg-type]
    )


def pulling(*states: Download | DownloadProgress) -> FakeService:
    batches: list[Message | Failure | anyio.Event] = [WatchDownloadsResponse(cursor=at(1), synced=True)]
    for revision, one in enumerate(states, start=2):
        if isinstance(one, Download):
            event = DownloadEvent(download=one)
        else:
            event = DownloadEvent(progress=DownloadProgressUpdate(name="downloads/7f", uid="u7", progress=one))
        batches.append(WatchDownloadsResponse(events=[event], cursor=at(revision)))
    created = CreateDownloadResponse(download=download("QUEUED"), cursor=at(1))
    return FakeService({"CreateDownload": created}, {"WatchDownloads": [batches]})


def model(state: str, stage: str = "UNSPECIFIED", uid: str = "u1", **progress: object) -> Model:
    value = LoadStage.Value(f"LOAD_STAGE_{stage}")
    return Model(
        name="models/m",
        uid=uid,
        spec=ModelSpec(repo=RepoSource(repo_id="org/m"), task=Task.TASK_GENERATE),
        commit=COMMIT,
        variant="Q4_K_M",
        backend="llama-server",
        attempt=1,
        state=ModelState.Value(f"MODEL_STATE_{state}"),
        load_progress=LoadProgress(stage=value, **progress),  # type: ignore[arg-type]
        endpoint="http://gpu1:8800/v1",
        active_tasks=[Task.TASK_GENERATE] if state == "LOADED" else [],
    )


def loading(*models: Model) -> FakeService:
    batches: list[Message | Failure | anyio.Event] = [WatchModelsResponse(cursor=at(1), synced=True)]
    for revision, one in enumerate(models, start=2):
        update = ModelProgressUpdate(name=one.name, uid=one.uid, load_progress=one.load_progress)
        is_progress = one.state == ModelState.MODEL_STATE_LOADING
        event = ModelEvent(progress=update) if is_progress else ModelEvent(model=one)
        batches.append(WatchModelsResponse(events=[event], cursor=at(revision)))
    answer = LoadModelResponse(model=model("LOADING", "QUEUED"), cursor=at(1))
    return FakeService({"LoadModel": answer}, {"WatchModels": [batches]})
