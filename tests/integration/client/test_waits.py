"""Waiting for a download or a model: what is seen, and how it ends."""

from collections.abc import AsyncIterator
from typing import TypeVar

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from slipway.common.v1.watch_pb2 import Cursor, Deleted
from slipway.registry.v1.download_pb2 import (
    Download,
    DownloadEvent,
    DownloadProgress,
    DownloadProgressUpdate,
    DownloadState,
)
from slipway.registry.v1.download_service_pb2 import (
    CreateDownloadResponse,
    ResumeDownloadResponse,
    WatchDownloadsResponse,
)
from slipway.runner.v1.model_pb2 import Model, ModelEvent, ModelState
from slipway.runner.v1.model_service_pb2 import (
    LoadModelResponse,
    ReadModelLogsResponse,
    UnloadModelResponse,
    WatchModelsResponse,
)
from slipway_client import Backoff, Registry, Runner, model_spec
from slipway_client.errors import BackendFailed, Conflict, Damaged, NotFound, ServiceFailure, Unavailable

from tests.integration.client.fakes import Failure, FakeService, serving

pytestmark = pytest.mark.anyio

AWAY = Failure(grpc.StatusCode.UNAVAILABLE, "going away")
Item = TypeVar("Item")
QUICK = Backoff(first=0.001, longest=0.001)


def cursor(revision: int) -> Cursor:
    return Cursor(epoch="e", revision=revision)


def failure(reason: str, code: grpc.StatusCode) -> Status:
    status = Status(code=code.value[0], message=f"{reason}: do something")
    status.details.add().Pack(ErrorInfo(reason=reason, domain="slipway"))
    return status


def download(state: str, **fields: object) -> Download:
    value = DownloadState.Value(f"DOWNLOAD_STATE_{state}")
    return Download(name="downloads/1", uid="u1", state=value, **fields)  # type: ignore[arg-type]


def downloads(revision: int, *changed: Download, synced: bool = False) -> WatchDownloadsResponse:
    events = [DownloadEvent(download=one) for one in changed]
    return WatchDownloadsResponse(events=events, cursor=cursor(revision), synced=synced)


def model(state: str, uid: str = "u1", **fields: object) -> Model:
    value = ModelState.Value(f"MODEL_STATE_{state}")
    return Model(name="models/m", uid=uid, state=value, **fields)  # type: ignore[arg-type]


def models(revision: int, *changed: Model, synced: bool = False, reset: bool = False) -> WatchModelsResponse:
    events = [ModelEvent(model=one) for one in changed]
    return WatchModelsResponse(events=events, cursor=cursor(revision), synced=synced, reset=reset)


async def collected(versions: AsyncIterator[Item]) -> list[Item]:
    return [version async for version in versions]


def creating(*streams: list[object]) -> FakeService:
    created = CreateDownloadResponse(download=download("QUEUED"), cursor=cursor(4))
    return FakeService({"CreateDownload": created}, {"WatchDownloads": list(streams)})  # type: ignore[arg-type]


async def test_pull_goes_on_behind_the_answer_and_over_a_lost_stream() -> None:
    progress = DownloadProgress(done_bytes=5, total_bytes=9)
    update = DownloadProgressUpdate(name="downloads/1", uid="u1", progress=progress)
    fake = creating(
        [
            downloads(5, download("RUNNING"), synced=True),
            WatchDownloadsResponse(events=[DownloadEvent(progress=update)], cursor=cursor(5)),
            AWAY,
        ],
        [downloads(6, download("VERIFYING"), synced=True), downloads(7, download("SUCCEEDED"))],
    )
    async with serving(fake), Registry.connect(fake.address, backoff=QUICK) as registry:
        seen = await collected(registry.pull("org/m", hf_token="t"))
    assert seen == [
        download("QUEUED"),
        download("RUNNING"),
        download("RUNNING", progress=progress),
        download("VERIFYING"),
        download("SUCCEEDED"),
    ]
    watches = fake.requests("WatchDownloads")
    assert [watch.after.revision for watch in watches] == [4, 5]
    assert all(watch.until_done and list(watch.names) == ["downloads/1"] for watch in watches)


async def test_pull_of_what_is_there_opens_no_watch() -> None:
    fake = FakeService({"CreateDownload": CreateDownloadResponse(download=download("SUCCEEDED"))})
    async with serving(fake), Registry.connect(fake.address) as registry:
        assert await collected(registry.pull("org/m")) == [download("SUCCEEDED")]
    assert [call.method for call in fake.calls] == ["CreateDownload"]


async def test_pull_resumes_what_a_caller_has_paused() -> None:
    paused = CreateDownloadResponse(download=download("PAUSED", pause_reason="PAUSE_REASON_CALLER"), cursor=cursor(4))
    resumed = ResumeDownloadResponse(download=download("QUEUED"), cursor=cursor(5))
    stream = [downloads(6, download("SUCCEEDED"), synced=True)]
    fake = FakeService({"CreateDownload": paused, "ResumeDownload": resumed}, {"WatchDownloads": [stream]})
    async with serving(fake), Registry.connect(fake.address) as registry:
        assert await collected(registry.pull("org/m", hf_token="t")) == [download("QUEUED"), download("SUCCEEDED")]
    _, resume, watch = fake.calls
    assert (resume.request.name, resume.metadata["x-hf-token"]) == ("downloads/1", "t")
    assert watch.request.after.revision == 5


@pytest.mark.parametrize(
    ("last", "error", "reason"),
    [
        (
            download("FAILED", error=failure("HASH_MISMATCH", grpc.StatusCode.DATA_LOSS)),
            Damaged,
            "HASH_MISMATCH",
        ),
        (download("CANCELLED"), Conflict, "DOWNLOAD_CANCELLED"),
        (None, NotFound, "DOWNLOAD_NOT_FOUND"),
    ],
)
async def test_pull_raises_what_the_download_ended_of(
    last: Download | None, error: type[Exception], reason: str
) -> None:
    gone = WatchDownloadsResponse(events=[DownloadEvent(deleted=Deleted(name="downloads/1", uid="u1"))])
    fake = creating([downloads(5, synced=True), downloads(6, last) if last else gone])
    async with serving(fake), Registry.connect(fake.address) as registry:
        versions = registry.pull("org/m")
        assert await anext(versions) == download("QUEUED")
        if last:
            assert await anext(versions) == last
        with pytest.raises(error, match=reason):
            await anext(versions)


async def test_pull_ends_when_the_download_is_not_there_after_a_reset() -> None:
    fake = creating([WatchDownloadsResponse(reset=True, synced=True, cursor=Cursor(epoch="new"))])
    async with serving(fake), Registry.connect(fake.address) as registry:
        with pytest.raises(NotFound):
            await collected(registry.pull("org/m"))


def loading(*streams: list[object]) -> FakeService:
    answer = LoadModelResponse(model=model("LOADING"), cursor=cursor(4))
    return FakeService({"LoadModel": answer}, {"WatchModels": list(streams)})  # type: ignore[arg-type]


async def test_load_goes_on_over_a_restart_of_the_runner() -> None:
    fake = loading(
        [models(5, synced=True), AWAY],
        [models(1, model("LOADING", adopted=True), synced=True, reset=True), models(2, model("LOADED"))],
    )
    async with serving(fake), Runner.connect(fake.address, backoff=QUICK) as runner:
        seen = await collected(runner.load(model_spec("org/m"), activation="never"))
    assert seen == [model("LOADING"), model("LOADING", adopted=True), model("LOADED")]


@pytest.mark.parametrize(
    ("last", "error", "reason"),
    [
        (
            model("ERROR", error=failure("BACKEND_EXITED", grpc.StatusCode.UNAVAILABLE)),
            BackendFailed,
            "BACKEND_EXITED",
        ),
        (model("UNLOADED"), NotFound, "MODEL_NOT_FOUND"),
        (model("LOADED", uid="another"), NotFound, "MODEL_NOT_FOUND"),
    ],
)
async def test_load_raises_what_the_load_ended_of(last: Model, error: type[Exception], reason: str) -> None:
    fake = loading([models(5, synced=True), models(6, last)])
    async with serving(fake), Runner.connect(fake.address) as runner:
        with pytest.raises(error, match=reason):
            await collected(runner.load(model_spec("org/m")))


@pytest.mark.parametrize("gone", [True, False])
async def test_unload_waits_until_it_is_gone(gone: bool) -> None:
    removed = WatchModelsResponse(events=[ModelEvent(deleted=Deleted(name="models/m", uid="u1"))])
    fake = FakeService(
        {"UnloadModel": UnloadModelResponse(model=model("UNLOADING"), cursor=cursor(1))},
        {"WatchModels": [[models(1, synced=True), removed if gone else models(2, model("UNLOADED"))]]},
    )
    async with serving(fake), Runner.connect(fake.address) as runner:
        seen = await collected(runner.unload("m", drain_timeout=0.5))
    assert seen[0].state == ModelState.MODEL_STATE_UNLOADING
    assert fake.requests("UnloadModel")[0].drain_timeout.nanos == 500_000_000


async def test_unload_says_what_leaked() -> None:
    leaked = model("ERROR", error=failure("LEAKED", grpc.StatusCode.INTERNAL))
    fake = FakeService({"UnloadModel": UnloadModelResponse(model=leaked)})
    async with serving(fake), Runner.connect(fake.address) as runner:
        with pytest.raises(BackendFailed, match="LEAKED"):
            await collected(runner.unload("m"))


async def test_a_followed_log_goes_on_where_it_was() -> None:
    fake = FakeService(
        streams={
            "ReadModelLogs": [
                [ReadModelLogsResponse(offset=0, text="ab", next_offset=2), AWAY],
                [AWAY],
                [ReadModelLogsResponse(offset=2, text="c", next_offset=3)],
            ]
        }
    )
    lost: list[str] = []
    async with serving(fake), Runner.connect(fake.address, backoff=QUICK) as runner:
        logs = runner.read_logs("m", follow=True, on_disconnect=lambda error, _: lost.append(error.text))
        assert "".join([piece.text async for piece in logs]) == "abc"
    offsets = [request.offset if request.HasField("offset") else None for request in fake.requests("ReadModelLogs")]
    assert offsets == [None, 2, 2]
    assert lost == ["going away", "going away"]


async def test_a_log_that_cannot_be_read_at_first_fails() -> None:
    fake = FakeService(streams={"ReadModelLogs": [[AWAY], [Failure(grpc.StatusCode.INTERNAL, reason="INTERNAL")]]})
    async with serving(fake), Runner.connect(fake.address) as runner:
        with pytest.raises(Unavailable):
            await collected(runner.read_logs("m", follow=True))
        with pytest.raises(ServiceFailure):
            await collected(runner.read_logs("m"))
