"""`slipway search` and `info`, against fakes of both services."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from slipway.common.v1.device_pb2 import DeviceKind, DeviceMemory
from slipway.common.v1.variant_pb2 import Fit, MemoryEstimate, RepoFile, Variant, WeightFormat
from slipway.registry.v1.catalog_service_pb2 import GatedFilter, GetRepoResponse, RepoSort, SearchReposResponse
from slipway.registry.v1.repo_pb2 import ConfigSummary, Gating, Repo, RepoSummary
from slipway.registry.v1.snapshot_pb2 import Snapshot, SnapshotVariant
from slipway.registry.v1.snapshot_service_pb2 import GetSnapshotResponse
from slipway.runner.v1.runner_pb2 import Device
from slipway.runner.v1.runner_pb2 import Runner as RunnerInfo
from slipway.runner.v1.runner_service_pb2 import GetRunnerResponse

from tests.integration.client.command import slipway
from tests.integration.client.fakes import FakeService, serving
from tests.integration.client.resources import COMMIT

pytestmark = pytest.mark.anyio


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
        sizes = ("--min-parameters", "500M", "--max-parameters", "8B")
        ended = await slipway(
            fake, "search", "m", "--gguf", "--tag", "en", "--sort", "likes", "-n", "5", "--gated", "open-only", *sizes
        )
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
    assert (first.gated, first.min_parameters, first.max_parameters) == (
        GatedFilter.GATED_FILTER_OPEN_ONLY,
        500_000_000,
        8_000_000_000,
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
            memory=MemoryEstimate(total_bytes=800_000_000, context_tokens=4096),
            default=True,
            fits=[
                Fit(device_id="cpu", fits=False, headroom_bytes=-1),
                Fit(device_id="GPU-1", fits=True),
                Fit(device_id="GPU-2", fits=True, headroom_bytes=3_000_000_000),
            ],
        ),
        Variant(
            name="F16",
            format=WeightFormat.WEIGHT_FORMAT_GGUF,
            size_bytes=1_200_000_000,
            fits=[
                Fit(device_id="cpu", headroom_bytes=-9_000_000_000),
                Fit(device_id="GPU-1", headroom_bytes=-2_000_000_000),
            ],
            projector_files=[RepoFile(path="mmproj.gguf")],
        ),
        Variant(
            name="Q2_K",
            format=WeightFormat.WEIGHT_FORMAT_GGUF,
            size_bytes=1_000_000_000,
            fits=[Fit(device_id="cpu", fits=True)],
            missing=["m-Q2_K-00002-of-00002.gguf"],
        ),
    ],
)


async def test_info_asks_the_runner_what_fits() -> None:
    devices = [
        Device(memory=DeviceMemory(device_id="cpu", kind=DeviceKind.DEVICE_KIND_CPU)),
        Device(memory=DeviceMemory(device_id="GPU-1"), display_name="H200"),
        Device(memory=DeviceMemory(device_id="GPU-2"), display_name="H200"),
        Device(memory=DeviceMemory(device_id="GPU-3"), display_name="H200", fault="fell off the bus"),
    ]
    runner = GetRunnerResponse(runner=RunnerInfo(devices=devices))
    here = Snapshot(variants=[SnapshotVariant(name="Q4_K_M", complete=True), SnapshotVariant(name="F16")])
    fake = FakeService(
        {
            "GetRepo": GetRepoResponse(repo=REPO),
            "GetRunner": runner,
            "GetSnapshot": GetSnapshotResponse(snapshot=here),
        }
    )
    async with serving(fake):
        ended = await slipway(fake, "info", "org/m@v1", "--context", "4096")
    assert ended.lines == [
        "org/m@1a2b3c4",
        "  text-generation · mit · gated: ask for access on its page · 5 downloads · 1 likes",
        "  llama · 494M parameters · 32,768 tokens of context · 3 files · 1.0 GB",
        "",
        "VARIANT  FORMAT  BITS      SIZE    MEMORY  CPU             2 \N{MULTIPLICATION SIGN} H200",
        "Q4_K_M   gguf     4.8  491.4 MB  800.0 MB  ✗ 1 B short     ✓ 3.0 GB left   default, in the cache",
        "F16      gguf            1.2 GB            ✗ 9.0 GB short  ✗ 2.0 GB short  mmproj",
        (
            "Q2_K     gguf            1.0 GB                                            "
            "not whole: the repository lacks m-Q2_K-00002-of-00002.gguf"
        ),
        "",
        "MEMORY is an estimate for 4,096 tokens of context; --context says another number.",
    ]
    [request] = fake.requests("GetRepo")
    assert (request.repo_id, request.revision, request.context_tokens) == ("org/m", "v1", 4096)
    assert [device.device_id for device in request.devices] == ["cpu", "GPU-1", "GPU-2"]


async def test_info_for_memory_that_is_named() -> None:
    fake = FakeService({"GetRepo": GetRepoResponse(repo=REPO)})
    async with serving(fake):
        await slipway(fake, "info", "org/m", "--device", "24GB", "--device", "big=80GiB")
        wrong = await slipway(fake, "info", "org/m", "--device", "big=lots")
        twice = await slipway(fake, "info", "org/m", "--device", "24GB", "--device", "24GB")
    [request] = fake.requests("GetRepo")
    assert [(it.device_id, it.free_bytes) for it in request.devices] == [("24GB", 24 * 10**9), ("big", 80 * 2**30)]
    assert fake.requests("GetRunner") == []
    assert (wrong.code, twice.code) == (2, 2)
    assert "'lots' is not a size such as 500MB, 64GiB or 2TB" in wrong.err
    assert "'24GB' is named twice; give each device a name: NAME=SIZE" in twice.err


async def test_info_without_a_runner() -> None:
    fake = FakeService({"GetRepo": GetRepoResponse(repo=Repo(repo_id="org/m", commit=COMMIT, from_cache=True))})
    async with serving(fake):
        ended = await slipway(fake, "info", "org/m")
    assert ended.lines[0] == "org/m@1a2b3c4 (from the cache)"
    assert ended.lines[-1] == "  no weights that a backend knows"
