"""`slipway pull` and what it takes to steer downloads and to remove them, against fakes of both services."""

import re
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from slipway.registry.v1.download_pb2 import (
    DownloadEvent,
    DownloadProgress,
)
from slipway.registry.v1.download_service_pb2 import (
    CancelDownloadResponse,
    CreateDownloadResponse,
    ListDownloadsResponse,
    PauseDownloadResponse,
    ResumeDownloadResponse,
    WatchDownloadsResponse,
)
from slipway.registry.v1.selection_pb2 import PatternSelection, Selection

from tests.integration.client.command import slipway
from tests.integration.client.fakes import Failure, FakeService, serving
from tests.integration.client.resources import at, download, pulling

pytestmark = pytest.mark.anyio

GOLDEN = Path(__file__).parent / "golden"


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
    assert re.match(r"✓ in the cache: 5\.0 GB in \d", last)
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


@pytest.mark.parametrize("detach", [(), ("--detach",)])
async def test_pull_resumes_what_somebody_has_paused(detach: tuple[str, ...]) -> None:
    fake = pulling(download("RUNNING"), download("SUCCEEDED", 5_000_000_000))
    paused = download("PAUSED", pause_reason="PAUSE_REASON_CALLER")
    fake.answers["CreateDownload"] = CreateDownloadResponse(download=paused, cursor=at(0))
    fake.answers["ResumeDownload"] = ResumeDownloadResponse(download=download("QUEUED"), cursor=at(1))
    async with serving(fake):
        ended = await slipway(fake, "pull", "org/m", *detach)
    assert ended.code == 0
    assert "PAUSED" not in ended.out
    [request] = fake.requests("ResumeDownload")
    assert request.name == "downloads/7f"


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
    assert (ended.code, ended.err) == (12, "HASH_MISMATCH: the Hub serves another file\n")
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


async def test_downloads_without_a_variant_are_told_by_their_number_of_files() -> None:
    default = download("RUNNING", 1_000_000_000)
    default.files.Clear()  # lists leave the paths out
    default.progress.total_files = 9
    fake = FakeService({"ListDownloads": ListDownloadsResponse(downloads=[default])})
    async with serving(fake):
        ended = await slipway(fake, "downloads")
    assert "9 files" in ended.lines[1]


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
