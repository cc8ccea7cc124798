"""`slipway status` and `watch`, against fakes of both services."""

from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse
from slipway.common.v1.device_pb2 import DeviceMemory
from slipway.common.v1.task_pb2 import Task
from slipway.common.v1.watch_pb2 import Deleted
from slipway.registry.v1.download_pb2 import (
    DownloadEvent,
    DownloadProgress,
)
from slipway.registry.v1.download_service_pb2 import (
    GetDownloadResponse,
    WatchDownloadsResponse,
)
from slipway.registry.v1.snapshot_pb2 import CacheUsage
from slipway.registry.v1.snapshot_service_pb2 import (
    GetCacheUsageResponse,
)
from slipway.runner.v1.model_pb2 import (
    ModelEvent,
)
from slipway.runner.v1.model_service_pb2 import (
    GetModelResponse,
    WatchModelsResponse,
)
from slipway.runner.v1.runner_pb2 import BackendInfo, Device
from slipway.runner.v1.runner_pb2 import Runner as RunnerInfo
from slipway.runner.v1.runner_service_pb2 import GetRunnerResponse

from tests.integration.client.command import slipway
from tests.integration.client.fakes import Failure, FakeService, nobody, serving
from tests.integration.client.resources import NO_MODEL, at, download, loading, model, pulling

pytestmark = pytest.mark.anyio

GOLDEN = Path(__file__).parent / "golden"


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
    with nobody() as address:
        fake = FakeService(address=address)
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
        as_json = await slipway(fake, "watch", "x", "--json")
    assert (ended.code, ended.err) == (3, "MODEL_NOT_FOUND: x is neither a model nor a download\n")
    assert as_json.error["code"] == "NOT_FOUND"


async def test_watch_of_everything_fails_when_a_service_does_not_answer() -> None:
    with nobody() as address:
        ended = await slipway(FakeService(address=address), "watch", "--json")
    assert (ended.code, ended.error["reason"], ended.error["exitCode"]) == (9, "UNAVAILABLE", 9)
