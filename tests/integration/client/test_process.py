"""The command as a process: signals, pipes, a terminal, and what it needs to start."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from slipway.registry.v1.download_pb2 import (
    Download,
    DownloadEvent,
    DownloadProgress,
    DownloadState,
    PauseReason,
)
from slipway.registry.v1.download_service_pb2 import (
    CreateDownloadResponse,
    ListDownloadsResponse,
    WatchDownloadsResponse,
)
from slipway.runner.v1.model_pb2 import Model, ModelState
from slipway.runner.v1.model_service_pb2 import LoadModelResponse, WatchModelsResponse

from tests.integration.client.command import SLIPWAY, addresses, environment, read_to
from tests.integration.client.fakes import FakeService, serving

pytestmark = pytest.mark.anyio

RUNNING = Download(
    name="downloads/7f",
    uid="u",
    repo_id="org/m",
    state=DownloadState.DOWNLOAD_STATE_RUNNING,
    progress=DownloadProgress(done_bytes=1_000_000, total_bytes=4_000_000),
)


def endless() -> FakeService:
    """A download and a load that never end."""
    loading = Model(name="models/m", uid="u", state=ModelState.MODEL_STATE_LOADING)
    return FakeService(
        {
            "CreateDownload": CreateDownloadResponse(download=RUNNING),
            "LoadModel": LoadModelResponse(model=loading),
        },
        {
            "WatchDownloads": [[WatchDownloadsResponse(synced=True), anyio.Event()]],
            "WatchModels": [[WatchModelsResponse(synced=True), anyio.Event()]],
        },
    )


@pytest.mark.parametrize(
    ("arguments", "shown", "note"),
    [
        (("pull", "org/m"), "downloading: 4.0 MB", "the download goes on; `slipway cancel 7f` ends it"),
        (("load", "org/m"), "preparing", "the load goes on; `slipway unload m` ends it"),
        (("pull", "org/m", "--json"), "DOWNLOAD_STATE_RUNNING", "the download goes on; `slipway cancel 7f` ends it"),
    ],
)
async def test_ctrl_c_ends_the_waiting_only(arguments: tuple[str, ...], shown: str, note: str, tmp_path: Path) -> None:
    fake = endless()
    with anyio.fail_after(60):
        async with (
            serving(fake),
            await anyio.open_process([SLIPWAY, *addresses(fake), *arguments], env=environment(tmp_path)) as process,
        ):
            await read_to(process, shown)
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 130
            assert process.stderr is not None
            error = b"".join([piece async for piece in process.stderr]).decode()
    assert error.count("\n") == 1
    assert note in error
    assert error.startswith('{"error":{"reason":"INTERRUPTED"' if "--json" in arguments else "INTERRUPTED: ")
    assert not {"CancelDownload", "PauseDownload", "UnloadModel"} & {call.method for call in fake.calls}


@pytest.mark.parametrize(
    ("options", "shown"), [((), "to go on: slipway resume 7f"), (("--json",), "DOWNLOAD_STATE_PAUSED")]
)
async def test_ctrl_c_does_not_say_that_what_is_paused_goes_on(
    options: tuple[str, ...], shown: str, tmp_path: Path
) -> None:
    fake = endless()
    paused = Download()
    paused.CopyFrom(RUNNING)
    paused.state, paused.pause_reason = DownloadState.DOWNLOAD_STATE_PAUSED, PauseReason.PAUSE_REASON_CALLER
    told = WatchDownloadsResponse(events=[DownloadEvent(download=paused)])
    fake.streams["WatchDownloads"] = [[WatchDownloadsResponse(synced=True), told, anyio.Event()]]
    with anyio.fail_after(60):
        async with (
            serving(fake),
            await anyio.open_process(
                [SLIPWAY, *addresses(fake), "pull", "org/m", *options], env=environment(tmp_path)
            ) as process,
        ):
            await read_to(process, shown)
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 130
            assert process.stderr is not None
            error = b"".join([piece async for piece in process.stderr]).decode()
    assert "the download is paused; `slipway resume 7f` or `slipway pull` again goes on" in error


async def test_a_bar_on_a_terminal_that_leaves_nothing_behind(tmp_path: Path) -> None:
    fake = endless()
    last = Download()
    last.CopyFrom(RUNNING)
    last.state = DownloadState.DOWNLOAD_STATE_SUCCEEDED
    go_on = anyio.Event()
    done = WatchDownloadsResponse(events=[DownloadEvent(download=last)])
    fake.streams["WatchDownloads"] = [[WatchDownloadsResponse(synced=True), go_on, done]]
    ours, theirs = pty.openpty()
    written = b""
    with anyio.fail_after(60):
        async with serving(fake):
            process = await anyio.open_process(
                [SLIPWAY, *addresses(fake), "pull", "org/m"],
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env=environment(tmp_path, TERM="xterm-256color", COLUMNS="90"),
            )
            os.close(theirs)
            while b"1.0 / 4.0 MB" not in written:
                written += await anyio.to_thread.run_sync(os.read, ours, 4096)
            go_on.set()
            while b"in the cache" not in written:
                written += await anyio.to_thread.run_sync(os.read, ours, 4096)
            assert await process.wait() == 0
    os.close(ours)
    text = written.decode(errors="replace")
    assert "━" in text
    assert "downloaded" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1, "the cursor is hidden and comes back"


@pytest.mark.parametrize("option", ["--json", ""])
async def test_a_reader_that_has_gone_ends_it_quietly(option: str, tmp_path: Path) -> None:
    fake = FakeService({"ListDownloads": ListDownloadsResponse(downloads=[RUNNING] * 2000)})
    async with serving(fake):
        command = f"{SLIPWAY} {option} {' '.join(addresses(fake))} downloads"
        ended = await anyio.run_process(
            ["bash", "-c", f"{command} | head -n 1; exit ${{PIPESTATUS[0]}}"], check=False, env=environment(tmp_path)
        )
    assert (ended.returncode, ended.stderr) == (141, b"")
    assert ended.stdout.count(b"\n") == 1


def test_errors_leave_standard_error_to_the_command(tmp_path: Path) -> None:
    # gRPC's core reads its log level when it is imported: nothing may import it before the command has set that.
    check = "import slipway_client.cli, sys, os; print('grpc' in sys.modules, os.environ['GRPC_VERBOSITY'])"
    ended = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, env=environment(tmp_path)
    )
    assert ended.stdout == "False NONE\n"


def test_version_and_help(tmp_path: Path) -> None:
    for option, expected in (("--version", "slipway "), ("--help", "Exit codes: 0 worked, 1 defect, 2 usage")):
        ended = subprocess.run(
            [SLIPWAY, option], capture_output=True, text=True, check=True, env=environment(tmp_path, COLUMNS="200")
        )
        assert expected in ended.stdout
