"""The command against fakes of both services: what it sends, what it writes, how it ends."""

from pathlib import Path

import anyio
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest, Help, PreconditionFailure, RequestInfo, RetryInfo
from grpc_health.v1.health_pb2 import HealthCheckResponse
from slipway.common.v1.device_pb2 import DeviceKind, DeviceMemory
from slipway.common.v1.task_pb2 import Task
from slipway.common.v1.variant_pb2 import Fit, MemoryEstimate, Variant, WeightFormat
from slipway.common.v1.watch_pb2 import Cursor, Deleted
from slipway.registry.v1.catalog_service_pb2 import GetRepoResponse, RepoSort, SearchReposResponse
from slipway.registry.v1.download_pb2 import (
    Download,
    DownloadEvent,
    DownloadProgress,
    DownloadProgressUpdate,
    DownloadState,
)
from slipway.registry.v1.download_service_pb2 import (
    CancelDownloadResponse,
    CreateDownloadResponse,
    GetDownloadResponse,
    ListDownloadsResponse,
    PauseDownloadResponse,
    ResumeDownloadResponse,
    WatchDownloadsResponse,
)
from slipway.registry.v1.repo_pb2 import ConfigSummary, Gating, Repo, RepoSummary
from slipway.registry.v1.selection_pb2 import PatternSelection, SelectedFiles, Selection
from slipway.registry.v1.snapshot_pb2 import CacheUsage, Snapshot
from slipway.registry.v1.snapshot_service_pb2 import (
    DeleteSnapshotResponse,
    GetCacheUsageResponse,
    ListSnapshotsResponse,
)
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
    GetModelResponse,
    ListModelsResponse,
    LoadModelResponse,
    ReadModelLogsResponse,
    SetActiveModelResponse,
    UnloadModelResponse,
    WatchModelsResponse,
)
from slipway.runner.v1.runner_pb2 import BackendInfo, Device
from slipway.runner.v1.runner_pb2 import Runner as RunnerInfo
from slipway.runner.v1.runner_service_pb2 import GetRunnerResponse

from tests.integration.client.command import slipway
from tests.integration.client.fakes import Failure, FakeService, serving

pytestmark = pytest.mark.anyio

COMMIT = "1a2b3c4d" * 5
GOLDEN = Path(__file__).parent / "golden"
NO_MODEL = Failure(grpc.StatusCode.NOT_FOUND, "there is no such model", "MODEL_NOT_FOUND")


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("SLIPWAY_REGISTRY", "SLIPWAY_RUNNER", "SLIPWAY_HF_TOKEN", "SLIPWAY_CONFIG"):
        monkeypatch.delenv(name, raising=False)


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


# --- find -------------------------------------------------------------------------------------------------------------


async def test_search() -> None:
    found = [
        RepoSummary(
            repo_id="org/m-GGUF",
            pipeline_tag="text-generation",
            tags=["gguf"],
            downloads=12_345,
            likes=7,
            parameters=7_000_000_000,
            update_time=Timestamp(seconds=1_700_000_000),
        ),
        RepoSummary(repo_id="org/other", gating=Gating.GATING_MANUAL, private=True),
    ]
    fake = FakeService({"SearchRepos": SearchReposResponse(repos=found)})
    async with serving(fake):
        ended = await slipway(fake, "search", "m", "--gguf", "--tag", "en", "--sort", "likes", "-n", "5")
        assert ended == await slipway(fake, "search", "m", "-n", "5")
        as_json = await slipway(fake, "search", "m", "--json")
    assert ended.lines == [
        "REPOSITORY  TASK             PARAMETERS  DOWNLOADS  LIKES  UPDATED",
        "org/m-GGUF  text-generation          7B      12.3k      7  2023-11-14  gguf",
        "org/other                                        0      0              private gated",
    ]
    first = fake.requests("SearchRepos")[0]
    assert (first.query, first.gguf_only, list(first.tags), first.sort, first.page_size) == (
        "m",
        True,
        ["en"],
        RepoSort.REPO_SORT_LIKES,
        5,
    )
    assert [document["repoId"] for document in as_json.documents] == ["org/m-GGUF", "org/other"]
    assert as_json.documents[0]["downloads"] == "12345"
    assert as_json.documents[1]["tags"] == []
    assert "parameters" not in as_json.documents[1]


async def test_search_that_finds_nothing() -> None:
    fake = FakeService({"SearchRepos": SearchReposResponse()})
    async with serving(fake):
        assert (await slipway(fake, "search", "x")).out == "nothing found\n"
        assert (await slipway(fake, "--json", "search", "x")).out == ""


REPO = Repo(
    repo_id="org/m",
    commit=COMMIT,
    summary=RepoSummary(pipeline_tag="text-generation", downloads=5, likes=1, gating=Gating.GATING_MANUAL),
    license="mit",
    config=ConfigSummary(architecture="llama", context_length=32_768, parameters=494_032_768),
    file_count=3,
    total_bytes=1_000_000_000,
    variants=[
        Variant(
            name="Q4_K_M",
            format=WeightFormat.WEIGHT_FORMAT_GGUF,
            size_bytes=491_400_032,
            bits_per_weight=4.83,
            memory=MemoryEstimate(total_bytes=800_000_000),
            default=True,
            fits=[Fit(device_id="cpu", fits=False, headroom_bytes=-1), Fit(device_id="GPU-1", fits=True)],
        ),
        Variant(
            name="F16",
            format=WeightFormat.WEIGHT_FORMAT_GGUF,
            size_bytes=1_200_000_000,
            fits=[
                Fit(device_id="cpu", headroom_bytes=-9_000_000_000),
                Fit(device_id="GPU-1", headroom_bytes=-2_000_000_000),
            ],
        ),
    ],
)


async def test_info_asks_the_runner_what_fits() -> None:
    devices = [
        Device(memory=DeviceMemory(device_id="cpu", kind=DeviceKind.DEVICE_KIND_CPU)),
        Device(memory=DeviceMemory(device_id="GPU-1")),
        Device(memory=DeviceMemory(device_id="GPU-2"), fault="fell off the bus"),
    ]
    runner = GetRunnerResponse(runner=RunnerInfo(devices=devices))
    fake = FakeService({"GetRepo": GetRepoResponse(repo=REPO), "GetRunner": runner})
    async with serving(fake):
        ended = await slipway(fake, "info", "org/m@v1", "--context", "4096")
    assert ended.lines == [
        "org/m@1a2b3c4",
        "  text-generation · mit · gated: ask for access on its page · 5 downloads · 1 likes",
        "  llama · 494M parameters · 32,768 tokens of context · 3 files · 1.0 GB",
        "VARIANT  FORMAT  BITS      SIZE    MEMORY  FITS",
        "Q4_K_M   gguf     4.8  491.4 MB  800.0 MB  yes           default",
        "F16      gguf            1.2 GB            2.0 GB short",
    ]
    [request] = fake.requests("GetRepo")
    assert (request.repo_id, request.revision, request.context_tokens) == ("org/m", "v1", 4096)
    assert [device.device_id for device in request.devices] == ["cpu", "GPU-1"]


async def test_info_without_a_runner() -> None:
    fake = FakeService({"GetRepo": GetRepoResponse(repo=Repo(repo_id="org/m", commit=COMMIT, from_cache=True))})
    async with serving(fake):
        ended = await slipway(fake, "info", "org/m")
    assert ended.lines[0] == "org/m@1a2b3c4 (from the cache)"
    assert ended.lines[-1] == "  no weights that a backend knows"


# --- download ---------------------------------------------------------------------------------------------------------


async def test_pull_tells_each_state_where_there_is_no_terminal() -> None:
    fake = pulling(
        download("RUNNING"),
        DownloadProgress(done_bytes=1_000_000_000, total_bytes=5_000_000_000),
        download("VERIFYING", 5_000_000_000),
        download("SUCCEEDED", 5_000_000_000, snapshot_path="models--org--m/snapshots/1a"),
    )
    async with serving(fake):
        ended = await slipway(fake, "pull", "org/m@v1", "--variant", "Q4_K_M")
    assert ended.code == 0
    *lines, last, path = ended.lines
    assert lines == [
        "org/m@1a2b3c4  Q4_K_M · 2 files · 5.0 GB",
        "waiting for its turn",
        "downloading: 5.0 GB",
        "verifying",
    ]
    assert last.startswith("✓ in the cache: 5.0 GB in 0.")
    assert path == "  models--org--m/snapshots/1a"
    [request] = fake.requests("CreateDownload")
    assert (request.repo_id, request.revision, request.selection) == ("org/m", "v1", Selection(variant="Q4_K_M"))


@pytest.mark.parametrize(
    ("arguments", "selection"),
    [
        ((), Selection()),
        (("--all",), Selection(everything=True)),
        (
            ("--include", "*.json", "--include", "*.gguf", "--exclude", "*Q2*"),
            Selection(patterns=PatternSelection(include=["*.json", "*.gguf"], exclude=["*Q2*"])),
        ),
    ],
)
async def test_pull_selects(arguments: tuple[str, ...], selection: Selection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_HF_TOKEN", "hf_mine")
    fake = pulling()
    async with serving(fake):
        ended = await slipway(fake, "pull", "org/m", "--detach", *arguments)
    assert ended.out == "7f QUEUED org/m@1a2b3c4\n"
    [call] = fake.calls
    assert call.request.selection == selection
    assert call.metadata["x-hf-token"] == "hf_mine"


async def test_pull_as_json_is_the_whole_download_each_time() -> None:
    fake = pulling(
        download("RUNNING"),
        DownloadProgress(done_bytes=1_000_000_000, total_bytes=5_000_000_000, eta=Duration(seconds=8)),
        download("SUCCEEDED", 5_000_000_000),
    )
    async with serving(fake):
        ended = await slipway(fake, "pull", "org/m", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (GOLDEN / "pull.jsonl").read_text()


async def test_pull_of_what_fails_ends_with_its_reason() -> None:
    error = Failure(grpc.StatusCode.DATA_LOSS, "the Hub serves another file", "HASH_MISMATCH").status()
    fake = pulling(download("RUNNING"), download("FAILED", error=error))
    async with serving(fake):
        ended = await slipway(fake, "pull", "org/m")
    assert (ended.code, ended.err) == (7, "HASH_MISMATCH: the Hub serves another file\n")
    assert ended.lines[-1] == "downloading: 5.0 GB"


async def test_pull_says_once_that_the_registry_is_away() -> None:
    fake = pulling(download("RUNNING"))
    away = Failure(grpc.StatusCode.UNAVAILABLE, "going away", "DRAINING")
    done = WatchDownloadsResponse(events=[DownloadEvent(download=download("SUCCEEDED"))], cursor=at(9), synced=True)
    fake.streams["WatchDownloads"] = [[*fake.streams["WatchDownloads"][0], away], [away], [done]]
    async with serving(fake):
        ended = await slipway(fake, "pull", "org/m")
    assert ended.code == 0
    assert ended.out.count(f"lost {fake.address} (DRAINING); going on when it is back") == 1


async def test_downloads() -> None:
    backing_off = download("BACKING_OFF", 1_000_000_000)
    backing_off.error.CopyFrom(Failure(grpc.StatusCode.UNAVAILABLE, "no route", "HUB_UNREACHABLE").status())
    fake = FakeService({"ListDownloads": ListDownloadsResponse(downloads=[backing_off])})
    async with serving(fake):
        ended = await slipway(fake, "downloads")
        fake.answers["ListDownloads"] = ListDownloadsResponse()
        assert (await slipway(fake, "downloads")).out == "no downloads; `slipway pull REPO` starts one\n"
    assert ended.lines == [
        "ID  STATE        REPOSITORY     FILES     DONE      OF",
        "7f  BACKING_OFF  org/m@1a2b3c4  Q4_K_M  1.0 GB  5.0 GB  HUB_UNREACHABLE: no route",
    ]


@pytest.mark.parametrize(
    ("verb", "method", "answer"),
    [
        ("pause", "PauseDownload", PauseDownloadResponse(download=download("PAUSED"))),
        ("resume", "ResumeDownload", ResumeDownloadResponse(download=download("QUEUED"))),
        ("cancel", "CancelDownload", CancelDownloadResponse(download=download("CANCELLED"))),
    ],
)
async def test_verbs_of_downloads(verb: str, method: str, answer: Message) -> None:
    fake = FakeService({method: answer})
    async with serving(fake):
        ended = await slipway(fake, verb, "7f")
        as_json = await slipway(fake, verb, "downloads/7f", "--json")
    assert ended.out.startswith("7f ")
    assert as_json.documents[0]["name"] == "downloads/7f"
    assert {request.name for request in fake.requests(method)} == {"downloads/7f"}


async def test_uninstall_deletes_every_snapshot() -> None:
    snapshots = [Snapshot(name="snapshots/1", commit=COMMIT), Snapshot(name="snapshots/2", commit="f" * 40)]
    fake = FakeService(
        {
            "ListSnapshots": ListSnapshotsResponse(snapshots=snapshots),
            "DeleteSnapshot": DeleteSnapshotResponse(freed_bytes=5_000_000, released_holders=["gpu1"]),
        }
    )
    async with serving(fake):
        ended = await slipway(fake, "uninstall", "org/m")
        fake.answers["ListSnapshots"] = ListSnapshotsResponse()
        nothing = await slipway(fake, "uninstall", "org/m")
    assert ended.lines == [
        "✓ deleted org/m@1a2b3c4: 5.0 MB freed, after gpu1 had released it",
        "✓ deleted org/m@fffffff: 5.0 MB freed, after gpu1 had released it",
    ]
    deletions = [call for call in fake.calls if call.method == "DeleteSnapshot"]
    assert [(call.request.name, call.request.force) for call in deletions] == [
        ("snapshots/1", True),
        ("snapshots/2", True),
    ]
    assert deletions[0].time_remaining is not None
    assert deletions[0].time_remaining > 120
    assert (nothing.code, nothing.err) == (3, "SNAPSHOT_NOT_FOUND: nothing of org/m is in the cache\n")


# --- run --------------------------------------------------------------------------------------------------------------


async def test_load_tells_each_stage_and_shard() -> None:
    fake = loading(
        model("LOADING", "FETCHING", done_bytes=1, total_bytes=2_000_000_000),
        model("LOADING", "FETCHING", done_bytes=2_000_000_000, total_bytes=2_000_000_000),
        model("LOADING", "STARTING"),
        model("LOADING", "LOADING_WEIGHTS", done_shards=0, total_shards=2),
        model("LOADING", "LOADING_WEIGHTS", done_shards=1, total_shards=2, done_bytes=1, total_bytes=2_000_000_000),
        model("LOADING", "LOADING_WEIGHTS", done_shards=1, total_shards=2, done_bytes=5, total_bytes=2_000_000_000),
        model("LOADING", "LOADING_WEIGHTS", done_shards=2, total_shards=2),
        model("LOADING", "WARMING_UP"),
        model("LOADED"),
    )
    async with serving(fake):
        ended = await slipway(
            fake, "load", "org/m@v1", "--id", "m", "--backend", "llama-server", "--task", "generate", "--evict"
        )
    *lines, loaded, endpoint, hint = ended.lines
    assert lines == [
        "m  org/m@1a2b3c4 · Q4_K_M · llama-server",
        "waiting for a slot or memory",
        "downloading: 2.0 GB",
        "starting llama-server",
        "loading weights: shard 0/2",
        "loading weights: shard 1/2",
        "loading weights: shard 2/2",
        "warming up",
    ]
    assert loaded.startswith("✓ loaded in 0.")
    assert loaded.endswith("s, active for generate")
    assert endpoint == '  POST http://gpu1:8800/v1/chat/completions with "model": "m"'
    assert hint == '  slipway chat m "Hello"'
    [request] = fake.requests("LoadModel")
    assert request.spec == ModelSpec(
        repo=RepoSource(repo_id="org/m", revision="v1"), backend="llama-server", task=Task.TASK_GENERATE
    )
    assert (request.id, request.evict) == ("m", True)


async def test_load_of_a_path_and_of_what_is_loaded() -> None:
    there = model("LOADED")
    there.spec.task = Task.TASK_EMBED
    fake = FakeService({"LoadModel": LoadModelResponse(model=there, existing=True, evicted=["models/old"])})
    async with serving(fake):
        ended = await slipway(fake, "load", "/models/m.gguf")
    assert ended.lines[1:] == [
        "  old is unloaded to make room",
        "✓ it was loaded already, active for generate",
        '  POST http://gpu1:8800/v1/embeddings with "model": "m"',
    ]
    assert fake.requests("LoadModel")[0].spec == ModelSpec(path="/models/m.gguf")


async def test_load_that_fails() -> None:
    failed = model("ERROR")
    failed.error.CopyFrom(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "9 GB, 6 GB free", "OUT_OF_MEMORY").status())
    fake = loading(failed)
    async with serving(fake):
        ended = await slipway(fake, "load", "org/m")
    assert (ended.code, ended.err) == (6, "OUT_OF_MEMORY: 9 GB, 6 GB free\n")


async def test_load_as_json() -> None:
    fake = loading(model("LOADING", "LOADING_WEIGHTS", done_shards=1, total_shards=2), model("LOADED"))
    async with serving(fake):
        ended = await slipway(fake, "--json", "load", "org/m")
        detached = await slipway(fake, "--json", "load", "org/m", "--detach")
    assert [(one["state"], one["loadProgress"]["doneShards"]) for one in ended.documents] == [
        ("MODEL_STATE_LOADING", 0),
        ("MODEL_STATE_LOADING", 1),
        ("MODEL_STATE_LOADED", 0),
    ]
    assert detached.documents == ended.documents[:1]


async def test_unload_waits() -> None:
    fake = loading(model("UNLOADING"), model("UNLOADED"))
    fake.answers["UnloadModel"] = UnloadModelResponse(model=model("UNLOADING"), cursor=at(1))
    async with serving(fake):
        ended = await slipway(fake, "unload", "m")
        assert (await slipway(fake, "unload", "m", "--detach")).out.startswith("m UNLOADING org/m@1a2b3c4")
    assert ended.lines[0] == "unloading"
    assert ended.lines[1].startswith("✓ m is gone after 0.")


async def test_activate() -> None:
    answer = SetActiveModelResponse(model=model("LOADED"), previous="models/old")
    fake = FakeService({"SetActiveModel": answer})
    async with serving(fake):
        ended = await slipway(fake, "activate", "m", "--task", "generate")
        assert (await slipway(fake, "activate", "m", "--json")).documents[0]["previous"] == "models/old"
    assert ended.out == "✓ m is active for generate instead of old\n"
    assert fake.requests("SetActiveModel")[0].task == Task.TASK_GENERATE


async def test_ps() -> None:
    half = model("LOADING", "LOADING_WEIGHTS", done_shards=2, total_shards=4, fraction=0.43)
    half.planned_bytes = 5_000_000_000
    fake = FakeService({"ListModels": ListModelsResponse(models=[model("LOADED"), half])})
    async with serving(fake):
        ended = await slipway(fake, "ps")
        fake.answers["ListModels"] = ListModelsResponse()
        assert (await slipway(fake, "ps")).out == "no models; `slipway load REPO` loads one\n"
    assert ended.lines == [
        "ID  STATE        ACTIVE FOR  BACKEND       MODEL                   MEMORY  SINCE",
        "m   LOADED       generate    llama-server  org/m@1a2b3c4 · Q4_K_M",
        "m   LOADING 43%              llama-server  org/m@1a2b3c4 · Q4_K_M  5.0 GB         shard 2/4",
    ]


async def test_logs() -> None:
    pieces = [ReadModelLogsResponse(text="one\ntw", next_offset=6), ReadModelLogsResponse(text="o\n", offset=6)]
    fake = FakeService(streams={"ReadModelLogs": [pieces, pieces]})
    async with serving(fake):
        ended = await slipway(fake, "logs", "m", "--follow")
        as_json = await slipway(fake, "logs", "m", "--json")
    assert ended.out == "one\ntwo\n"
    assert [document["text"] for document in as_json.documents] == ["one\ntw", "o\n"]
    assert [request.follow for request in fake.requests("ReadModelLogs")] == [True, False]


# --- look -------------------------------------------------------------------------------------------------------------

RUNNER = RunnerInfo(
    host="gpu1",
    version="0.1.0",
    gateway="http://gpu1:8800/v1",
    registry="reg:50051",
    model_count=2,
    loaded_count=1,
    devices=[
        Device(
            memory=DeviceMemory(device_id="GPU-1", total_bytes=149_000_000_000, free_bytes=133_000_000_000),
            display_name="NVIDIA H200",
            utilization=0.37,
        )
    ],
    backends=[
        BackendInfo(name="vllm", usable=True, version="0.11", builds=["cuda"], tasks=[Task.TASK_GENERATE]),
        BackendInfo(name="sglang", why_not="not installed"),
    ],
)


async def test_status() -> None:
    fake = FakeService(
        {
            "Check": HealthCheckResponse(status=HealthCheckResponse.SERVING),
            "GetRunner": GetRunnerResponse(runner=RUNNER),
            "GetCacheUsage": GetCacheUsageResponse(
                usage=CacheUsage(
                    snapshot_bytes=5_000_000_000, snapshot_count=1, disk_free_bytes=1, disk_total_bytes=1000
                )
            ),
        }
    )
    async with serving(fake):
        ended = await slipway(fake, "status")
        as_json = await slipway(fake, "status", "--json")
    assert ended.code == 0
    assert ended.lines == [
        f"registry {fake.address}  serving",
        "         cache 5.0 GB in 1 snapshot, 1 B free of 1.0 kB",
        f"runner   {fake.address}  serving",
        "         gpu1 · 0.1.0 · 1 of 2 models loaded",
        "         gateway http://gpu1:8800/v1",
        "         it does not reach its registry reg:50051",
        "",
        "DEVICE           FREE        OF  BUSY  ID",
        "NVIDIA H200  133.0 GB  149.0 GB  37%   GPU-1",
        "",
        "BACKEND  VERSION  SERVES",
        "vllm     0.11     generate  cuda",
        "sglang                      not installed",
    ]
    registry, runner = as_json.documents
    assert (registry["service"], registry["health"], registry["cache"]["snapshotCount"]) == ("registry", "SERVING", 1)
    assert runner["runner"]["backends"][1]["whyNot"] == "not installed"


async def test_status_of_a_registry_that_has_no_usage_yet_and_a_runner_that_drains() -> None:
    fake = FakeService(
        {
            "Check": HealthCheckResponse(status=HealthCheckResponse.NOT_SERVING),
            "GetRunner": GetRunnerResponse(runner=RunnerInfo(draining=True)),
        }
    )
    async with serving(fake):
        ended = await slipway(fake, "status")
    assert ended.code == 0
    assert ended.lines[0] == f"registry {fake.address}  not serving"
    assert "draining" in ended.out


async def test_status_when_nobody_answers() -> None:
    fake = FakeService()
    await fake.start()
    await fake.stop()
    ended = await slipway(fake, "status")
    as_json = await slipway(fake, "status", "--json")
    assert ended.code == as_json.code == 9
    assert ended.lines == [
        f"registry {fake.address}  does not answer",
        f"runner   {fake.address}  does not answer",
    ]
    assert ended.err.startswith("UNAVAILABLE: no ")
    assert [document["health"] for document in as_json.documents] == ["UNREACHABLE"] * 2


async def test_watch_of_one_model_ends_when_it_is_gone() -> None:
    fake = loading(
        model("LOADING", "STARTING"),
        model("LOADING", "STARTING", detail="the same step"),
        model("LOADED"),
        model("UNLOADED"),
    )
    fake.answers["GetModel"] = GetModelResponse(model=model("LOADED"))
    first = fake.streams["WatchModels"][0][0]
    assert isinstance(first, WatchModelsResponse)
    first.events.append(ModelEvent(model=model("LOADING", "QUEUED")))
    async with serving(fake):
        ended = await slipway(fake, "watch", "m")
    assert [line.split("  ", 1)[1] for line in ended.lines] == [
        "models/m  LOADING  waiting for a slot or memory",
        "models/m  starting llama-server",
        "models/m  LOADED  loaded",
        "models/m  UNLOADED  unloaded",
    ]
    assert list(fake.requests("WatchModels")[0].names) == ["models/m"]


async def test_watch_of_one_download_as_json() -> None:
    fake = pulling(
        DownloadProgress(done_bytes=1, total_bytes=5_000_000_000),
        download("RUNNING"),
    )
    fake.answers |= {"GetModel": NO_MODEL, "GetDownload": GetDownloadResponse(download=download("RUNNING"))}
    gone = WatchDownloadsResponse(events=[DownloadEvent(deleted=Deleted(name="downloads/7f", uid="u7"))])
    reset = WatchDownloadsResponse(reset=True, synced=True, cursor=at(9))
    fake.streams["WatchDownloads"] = [[*fake.streams["WatchDownloads"][0], reset, gone]]
    async with serving(fake):
        ended = await slipway(fake, "watch", "7f", "--json")
    assert ended.code == 0
    assert ended.out == (GOLDEN / "watch.jsonl").read_text()


async def test_watch_of_what_is_not_there() -> None:
    no_download = Failure(grpc.StatusCode.NOT_FOUND, reason="DOWNLOAD_NOT_FOUND")
    fake = FakeService({"GetModel": NO_MODEL, "GetDownload": no_download})
    async with serving(fake):
        ended = await slipway(fake, "watch", "x")
    assert (ended.code, ended.err) == (3, "MODEL_NOT_FOUND: x is neither a model nor a download\n")


async def test_watch_of_everything_fails_when_a_service_does_not_answer() -> None:
    fake = FakeService()
    await fake.start()
    await fake.stop()
    ended = await slipway(fake, "watch", "--json")
    assert (ended.code, ended.error["reason"], ended.error["exitCode"]) == (9, "UNAVAILABLE", 9)


# --- errors -----------------------------------------------------------------------------------------------------------


async def test_an_error_for_people() -> None:
    fake = FakeService(
        {
            "GetRepo": Failure(
                grpc.StatusCode.PERMISSION_DENIED,
                "ask for access on its page",
                "REPO_GATED",
                (Help(links=[Help.Link(description="the page", url="https://hub.example/org/m")]),),
            ),
            "DeleteSnapshot": Failure(
                grpc.StatusCode.FAILED_PRECONDITION,
                "it is in use",
                "SNAPSHOT_PINNED",
                (
                    PreconditionFailure(
                        violations=[
                            PreconditionFailure.Violation(type="PIN", subject="gpu1", description="until it unloads m")
                        ]
                    ),
                    RetryInfo(retry_delay=Duration(seconds=2)),
                ),
            ),
            "ListSnapshots": ListSnapshotsResponse(snapshots=[Snapshot(name="snapshots/1")]),
            "ListModels": Failure(
                grpc.StatusCode.INTERNAL, "internal error", "INTERNAL", (RequestInfo(request_id="r-1"),)
            ),
            "ListDownloads": Failure(
                grpc.StatusCode.INVALID_ARGUMENT,
                "see the fields",
                "INVALID_FIELDS",
                (BadRequest(field_violations=[BadRequest.FieldViolation(field="repo_id", description="too long")]),),
            ),
        }
    )
    async with serving(fake):
        gated = await slipway(fake, "info", "org/m")
        pinned = await slipway(fake, "uninstall", "org/m")
        defect = await slipway(fake, "ps")
        invalid = await slipway(fake, "downloads")
    assert (gated.code, gated.err) == (4, "REPO_GATED: ask for access on its page\n  https://hub.example/org/m\n")
    assert (pinned.code, pinned.err) == (
        5,
        "SNAPSHOT_PINNED: it is in use\n  gpu1: until it unloads m\n  try again in 2.0 s\n",
    )
    assert (defect.code, defect.err) == (
        1,
        "INTERNAL: internal error\n  its log has more under request id r-1\n",
    )
    assert (invalid.code, invalid.err) == (2, "INVALID_FIELDS: see the fields\n  repo_id: too long\n")


async def test_an_error_for_programs() -> None:
    fake = FakeService({"GetModel": NO_MODEL})
    async with serving(fake):
        ended = await slipway(fake, "chat", "m", "hi", "--json")
    assert (ended.code, ended.out) == (3, "")
    request_id = fake.calls[0].metadata["x-request-id"]
    assert ended.error == {
        "reason": "MODEL_NOT_FOUND",
        "message": "there is no such model",
        "code": "NOT_FOUND",
        "exitCode": 3,
        "requestId": request_id,
        "address": fake.address,
    }


@pytest.mark.parametrize(
    ("arguments", "reason", "text"),
    [
        (("pll",), "USAGE", "No such command 'pll'. Did you mean 'pull'?"),
        (("pull",), "USAGE", "Missing argument"),
        (("pull", "org/m@"), "USAGE", "'org/m@' is not REPO or REPO@REVISION"),
        (("pull", "org/m", "--variant", "a", "--all"), "USAGE", "choose by variant, or by patterns, or everything"),
        (("search", "--sort", "size"), "USAGE", "is not one of"),
        (("ps", "--runner", "nowhere"), "CONFIGURATION", "--runner: 'nowhere' has no host or no port"),
        (("ps", "--config", "/nowhere.toml"), "CONFIGURATION", "there is no such file"),
    ],
)
async def test_usage_errors(arguments: tuple[str, ...], reason: str, text: str) -> None:
    fake = FakeService(address="127.0.0.1:1")
    ended = await slipway(fake, *arguments)
    assert ended.code == 2
    assert ended.err.startswith(f"{reason}: ")
    assert text in ended.err
    as_json = await slipway(fake, *arguments, "--json")
    assert (as_json.code, as_json.out) == (2, "")
    assert (as_json.error["reason"], as_json.error["exitCode"]) == (reason, 2)


async def test_an_unknown_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_REGISTY", "x")
    ended = await slipway(FakeService(address="127.0.0.1:1"), "ps")
    assert (ended.code, ended.err) == (
        2,
        "CONFIGURATION: the variable SLIPWAY_REGISTY is not known; did you mean SLIPWAY_REGISTRY?\n",
    )


async def test_what_follows_two_dashes_is_not_ours() -> None:
    fake = FakeService({"SearchRepos": SearchReposResponse()})
    async with serving(fake):
        ended = await slipway(fake, "search", "--", "--json")
    assert ended.out == "nothing found\n"
    assert fake.requests("SearchRepos")[0].query == "--json"
