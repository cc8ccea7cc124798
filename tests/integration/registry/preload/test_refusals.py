"""What stands in the way is said in a line, with an exit code of its own."""

import os
import signal
from types import SimpleNamespace

import pytest
from anyio import to_thread
from slipway.registry.v1 import download_pb2

from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.hub.faults import HoldAfter, Status
from tests.integration.registry.preload.program import PATIENCE, Build
from tests.integration.registry.snapshots.served import GGUFS, served

MIB = 1 << 20
DATA = "/cdn/"


@pytest.fixture(autouse=True)
def _repos(hub: HubEmulator) -> None:
    hub.add_repo("org/m", GGUFS)
    hub.add_repo("org/gated", GGUFS, gated="manual")
    hub.add_repo("org/large", {"model.safetensors": Random(32 * MIB)})


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "slipway-registry: nothing to preload"),
        (["a/b/c"], 2, "slipway-registry: a/b/c: give a model repository as owner/name"),
        (["org/m", "--patience", "soon"], 2, "slipway-registry: --patience: 'soon' is not like"),
        (["org/none"], 3, "org/none: REPO_NOT_FOUND"),
        (["org/m@none"], 3, "org/m@none: REVISION_NOT_FOUND"),
        (["org/m", "--variant", "Q2_K"], 3, "org/m: VARIANT_NOT_FOUND"),
        (["org/m", "--include", "*.none"], 3, "org/m: SELECTION_EMPTY"),
        (["org/gated"], 4, "org/gated: REPO_GATED"),
        (["org/m", "--disk-reserve", "1000TB"], 6, "org/m: DISK_FULL"),
    ],
)
def test_what_is_wrong_has_a_code(build: Build, arguments: list[str], code: int, said: str) -> None:
    done = build.preload(*arguments)
    assert (done.code, done.out) == (code, ""), done.err
    assert any(line.startswith(said) for line in done.err.splitlines()), done.err
    assert "Traceback" not in done.err


def test_room_that_others_would_have_to_make_is_not_waited_for(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry waits; a build has nobody who would make room."""
    nearly_full = SimpleNamespace(f_frsize=MIB, f_blocks=1000, f_bavail=31)
    monkeypatch.setattr(os, "statvfs", lambda _: nearly_full)
    done = build.preload("org/large")
    assert done.code == 6
    assert "org/large: DISK_FULL: 33.6 MB are needed" in done.err


def test_a_gated_repository_says_where_to_ask(build: Build) -> None:
    assert "/org/gated" in build.preload("org/gated").err.splitlines()[-1]


def test_a_token_opens_it(hub: HubEmulator, build: Build) -> None:
    hub.add_user("ann", "hf_annstoken", ["org/gated"])
    done = build.preload("org/gated", HF_TOKEN="hf_annstoken")
    assert done.code == 0
    assert "hf_annstoken" not in done.err + done.out


def test_a_hub_that_is_away_is_waited_for_no_longer_than_is_said(hub: HubEmulator, build: Build) -> None:
    hub.down("hub")
    done = build.preload("org/m", "--patience", "0s")
    assert done.code == 7
    assert "org/m: HUB_UNREACHABLE" in done.err


@pytest.mark.parametrize("path", ["/api/models/org/m/revision", "/api/models/org/m/auth-check"])
def test_a_hub_that_comes_back_is_asked_again(hub: HubEmulator, build: Build, path: str) -> None:
    hub.faults.add(Status(503, headers={"Retry-After": "1"}), path, times=5)
    done = build.preload("org/m")
    assert done.code == 0, done.err
    assert "HUB_ERROR" in done.err
    assert "trying again in" in done.err


@pytest.mark.full
def test_a_transfer_is_tried_no_longer_than_is_said(hub: HubEmulator, build: Build) -> None:
    hub.faults.add(Status(503), DATA)
    done = build.preload("org/large", "--patience", "1s")
    assert done.code == 7, done.err
    assert "the download goes on later" in done.err


def test_what_fails_does_not_hold_up_the_others(build: Build) -> None:
    done = build.preload("org/none", "org/m", "org/gated", "--json")
    assert done.code == 3, "the code of the first that failed"
    assert [it["name"] for it in done.documents] == ["org/m"]


@pytest.mark.anyio
@pytest.mark.parametrize("state", ["state", "another"])
async def test_a_registry_at_work_is_left_alone(hub: HubEmulator, build: Build, state: str) -> None:
    async with served(build.directory, hub.endpoint) as it:
        directory = str(build.directory / state)
        done = await to_thread.run_sync(build.run, "org/m", "--state-dir", directory)
        assert done.code == 5
        (line,) = done.err.splitlines()
        assert "in use by another registry" in line
        assert "slipway pull" in line
        await it.pull("org/m")


@pytest.mark.anyio
async def test_what_a_registry_has_paused_goes_on(hub: HubEmulator, build: Build) -> None:
    hub.faults.add(HoldAfter(MIB), DATA)
    async with served(build.directory, hub.endpoint) as it:
        created = await it.client.create_download("org/large")
        await to_thread.run_sync(hub.journal.wait_for, DATA)
        paused = await it.client.pause_download(created.download.name.removeprefix("downloads/"))
        assert paused.download.state == download_pb2.DOWNLOAD_STATE_PAUSED
    hub.faults.clear()
    assert build.run("org/large").code == 0


@pytest.mark.anyio
async def test_what_a_caller_began_with_a_token_needs_it_no_more(hub: HubEmulator, build: Build) -> None:
    hub.add_user("ann", "hf_annstoken")
    hub.faults.add(HoldAfter(MIB), DATA)
    async with served(build.directory, hub.endpoint) as it:
        await it.client.create_download("org/large", hf_token="hf_annstoken")
        await to_thread.run_sync(hub.journal.wait_for, DATA)
    hub.faults.clear()
    assert build.run("org/large").code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_says_so_and_goes_on_the_next_time(
    hub: HubEmulator, build: Build, number: signal.Signals
) -> None:
    hub.faults.add(HoldAfter(MIB), DATA)
    with build.running("org/large") as process:
        hub.journal.wait_for(DATA)
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert err.splitlines()[-1].startswith("interrupted: ")
    assert "Traceback" not in err
    hub.faults.clear()
    assert build.preload("org/large").code == 0


def test_progress_is_told_in_whole_lines(hub: HubEmulator, build: Build) -> None:
    hub.throttle.set("cdn", total=1e6)
    with build.running("org/large") as process:
        assert process.stderr
        said = []
        for line in process.stderr:
            said.append(line)
            if " of 33.6 MB" in line:
                hub.throttle.set("cdn")
        assert process.wait(PATIENCE) == 0, said
    err = "".join(said)
    assert " of 33.6 MB" in err
    assert all(line.startswith("org/large: ") for line in err.splitlines())
    assert not {"\r", "\x1b"} & set(err)


def test_a_cache_that_cannot_be_made_is_the_disk(build: Build) -> None:
    build.home.write_text("no directory")
    done = build.preload("org/m")
    assert done.code == 6
    assert "Not a directory" in done.err


def test_an_endpoint_that_is_none_is_the_configuration(build: Build) -> None:
    done = build.preload("org/m", HF_ENDPOINT="nowhere")
    assert done.code == 2
    assert "HF_ENDPOINT" in done.err


def test_transformers_cache_is_warned_about(build: Build) -> None:
    assert "TRANSFORMERS_CACHE=/tf is ignored" in build.preload("org/m", TRANSFORMERS_CACHE="/tf").err
