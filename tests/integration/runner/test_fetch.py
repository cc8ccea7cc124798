"""Models of repositories: files that are fetched, held and given back."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from slipway_runner.backends.base import StartLimits
from slipway_runner.models.snapshots import Fetching, Snapshot, Want
from slipway_runner.models.spec import RepoSource
from slipway_runner.models.states import State
from slipway_runner.progress.signals import LoadStage, Source
from slipway_service.fault import Fault, Reason

from tests.integration.runner.fake_registry import COMMIT, SPEC, FakeSnapshots
from tests.integration.runner.fakes import Clock, FakeBackend, bench

pytestmark = pytest.mark.anyio

IMPATIENT = FakeBackend(start_limits=StartLimits(stall_seconds=0.4, floor_seconds=60.0))


@pytest.fixture
def registry(tmp_path: Path) -> FakeSnapshots:
    (tmp_path / "snapshot").mkdir()
    return FakeSnapshots(tmp_path / "snapshot")


async def test_bytes_are_told_and_the_files_are_held_until_it_is_gone(tmp_path: Path, registry: FakeSnapshots) -> None:
    async with bench(tmp_path, snapshots=registry) as on:
        loading = (await on.fleet.load(SPEC, "m")).model
        assert (loading.commit, loading.variant) == (COMMIT, "Q4_K_M")
        await registry.asked.wait()
        assert registry.wants[0].files == ("m-Q4_K_M.gguf",)
        assert registry.wants[0].holder == loading.uid
        assert registry.report is not None
        registry.report(Fetching(done_bytes=250, total_bytes=1000))
        await on.seen.until(lambda: any(told.bytes_done == 250 for told in on.seen.told))
        told = on.seen.told[-1]
        assert (told.stage, told.source, told.bytes_total) == (LoadStage.FETCHING, Source.REPORTED, 1000)
        registry.done.set()
        loaded = await on.seen.state(State.LOADED)
        assert loaded.snapshot == "snapshots/s1"
        assert loaded.model_path == str(registry.root)  # which the fake backend is given
        assert registry.held_for == {loaded.uid}
        on.fleet.unload("m")
        await on.seen.until(lambda: bool(on.seen.gone))
    assert registry.held_for == set()


class Gated(FakeSnapshots):
    """Takes nothing back before `open`."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.open, self.asked_back = anyio.Event(), anyio.Event()
        self.done.set()

    async def release(self, holder: str) -> None:
        self.asked_back.set()
        await self.open.wait()
        await super().release(holder)


@pytest.fixture
def gated(tmp_path: Path) -> Gated:
    (tmp_path / "snapshot").mkdir()
    return Gated(tmp_path / "snapshot")


async def test_who_hears_that_it_is_unloaded_may_delete_its_files(
    tmp_path: Path, gated: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slipway_runner.models.supervisor._FILES_BACK_SECONDS", 600.0)
    async with bench(tmp_path, snapshots=gated) as on:
        await on.fleet.load(SPEC, "m")
        await on.seen.state(State.LOADED)
        on.fleet.unload("m")
        with anyio.fail_after(60):
            await gated.asked_back.wait()
        assert on.fleet.get("m").state is State.UNLOADING
        gated.open.set()
        await on.seen.state(State.UNLOADED)
        assert gated.held_for == set()


async def test_a_registry_that_hangs_keeps_nobody_from_being_unloaded(
    tmp_path: Path, gated: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slipway_runner.models.supervisor._FILES_BACK_SECONDS", 0.1)
    async with bench(tmp_path, snapshots=gated) as on:
        await on.fleet.load(SPEC, "m")
        await on.seen.state(State.LOADED)
        on.fleet.unload("m")
        await on.seen.state(State.UNLOADED)


async def test_a_silent_download_stalls_but_a_paused_one_waits(
    tmp_path: Path, registry: FakeSnapshots, clock: Clock
) -> None:
    async with bench(tmp_path, snapshots=registry, backend=IMPATIENT) as on:
        await on.fleet.load(SPEC, "paused")
        await registry.asked.wait()
        assert registry.report is not None
        registry.report(Fetching(done_bytes=0, total_bytes=1000, paused=True, detail="paused by a caller"))
        await on.seen.until(lambda: on.fleet.get("paused").message == "paused by a caller")
        await clock.passes(1.2)
        assert on.fleet.get("paused").state is State.LOADING
        assert on.fleet.get("paused").message == "paused by a caller"
        registry.report(Fetching(done_bytes=1, total_bytes=1000))
        await clock.passes(0.3)
        assert on.fleet.get("paused").state is State.LOADING
        await clock.passes(0.2)
        stalled = await on.seen.state(State.ERROR, model_id="paused")
        assert stalled.error is not None
        assert stalled.error.reason is Reason.LOAD_STALLED


async def test_what_it_waited_for_is_no_longer_said_when_it_goes_on(tmp_path: Path, registry: FakeSnapshots) -> None:
    async with bench(tmp_path, snapshots=registry) as on:
        await on.fleet.load(SPEC, "m")
        await registry.asked.wait()
        assert registry.report is not None
        registry.report(Fetching(done_bytes=0, total_bytes=1000, detail="download waits for slot"))
        await on.seen.until(lambda: on.fleet.get("m").message == "download waits for slot")
        registry.report(Fetching(done_bytes=1, total_bytes=1000))
        await on.seen.until(lambda: on.fleet.get("m").message == "downloading")


async def test_a_failed_download_fails_the_load_with_its_reason(tmp_path: Path, registry: FakeSnapshots) -> None:
    async with bench(tmp_path, snapshots=registry) as on:
        registry.fault = Fault(Reason.DOWNLOAD_FAILED, "the Hub says no")
        registry.done.set()
        await on.fleet.load(SPEC, "m")
        failed = await on.seen.state(State.ERROR)
        assert failed.error is not None
        assert (failed.error.reason, failed.error.text) == (Reason.DOWNLOAD_FAILED, "the Hub says no")
        assert registry.held_for == set()


async def test_an_unload_while_fetching_only_stops_waiting(tmp_path: Path, registry: FakeSnapshots) -> None:
    async with bench(tmp_path, snapshots=registry) as on:
        await on.fleet.load(SPEC, "m")
        await registry.asked.wait()
        on.fleet.unload("m")
        await on.seen.until(lambda: bool(on.seen.gone))
        assert on.seen.states() == [State.LOADING, State.UNLOADING, State.UNLOADED]


async def test_a_restart_takes_the_same_commit_though_the_branch_has_moved(
    tmp_path: Path, registry: FakeSnapshots
) -> None:
    async with bench(tmp_path, snapshots=registry) as on:
        registry.done.set()
        await on.fleet.load(SPEC, "m")
        model = await on.seen.state(State.LOADED)
        registry.commit = "d" * 40
        os.kill(model.pid, signal.SIGKILL)
        await on.seen.state(State.RESTARTING)
        again = await on.seen.state(State.LOADED)
        assert again.commit == COMMIT
        assert {want.commit for want in registry.wants} == {COMMIT}
        assert registry.held_for == {again.uid}
        with pytest.raises(Fault) as moved:
            await on.fleet.load(SPEC, "m")
        assert moved.value.reason is Reason.MODEL_ID_TAKEN
        assert "c" * 40 in moved.value.text
        assert await on.fleet.load(replace(SPEC, source=RepoSource(repo_id="owner/model", revision=COMMIT)), "x")


async def test_without_the_registry_what_is_there_is_joined_and_the_rest_is_refused(
    tmp_path: Path, registry: FakeSnapshots
) -> None:
    async with bench(tmp_path, snapshots=registry) as on:
        registry.done.set()
        await on.fleet.load(SPEC, "m")
        model = await on.seen.state(State.LOADED)
        registry.away = True
        joined = await on.fleet.load(SPEC, "m")
        assert joined.existing
        assert joined.model.uid == model.uid
        with pytest.raises(Fault) as refused:
            await on.fleet.load(SPEC, "other")
        assert refused.value.reason is Reason.REGISTRY_UNAVAILABLE


async def test_loads_beyond_the_limit_wait_their_turn(tmp_path: Path, registry: FakeSnapshots) -> None:
    async with bench(tmp_path, snapshots=registry) as on:  # two at once
        for name in ("a", "b", "c"):
            await on.fleet.load(SPEC, name)
        with anyio.fail_after(30):
            while len(registry.wants) < 2:
                await anyio.lowlevel.checkpoint()
        await on.seen.until(lambda: on.fleet.get("c").progress is not None)
        told = on.fleet.get("c").progress
        assert told is not None
        assert told.stage is LoadStage.QUEUED
        on.fleet.unload("a")
        with anyio.fail_after(30):
            while len(registry.wants) < 3:
                await anyio.lowlevel.checkpoint()


async def test_downloads_that_do_nothing_hold_up_no_other_load(tmp_path: Path, registry: FakeSnapshots) -> None:
    async with bench(tmp_path, snapshots=registry) as on:  # two at once
        for name in ("a", "b"):
            registry.asked = anyio.Event()
            await on.fleet.load(SPEC, name)
            with anyio.fail_after(30):
                await registry.asked.wait()
            assert registry.report is not None
            registry.report(Fetching(done_bytes=0, total_bytes=1000, paused=True, detail="paused by a caller"))
        assert (await on.load("c")).state is State.LOADED
        registry.done.set()
        for name in ("a", "b"):
            await on.seen.state(State.LOADED, model_id=name)


async def test_a_file_that_is_missing_in_the_snapshot_is_told(tmp_path: Path, registry: FakeSnapshots) -> None:
    async def nothing(want: Want, report: Callable[[Fetching], None]) -> Snapshot:
        return Snapshot(root=tmp_path / "models")

    registry.fetch = nothing  # type: ignore[method-assign]
    async with bench(tmp_path, snapshots=registry) as on:
        await on.fleet.load(SPEC, "m")
        failed = await on.seen.state(State.ERROR)
        assert failed.error is not None
        assert failed.error.reason is Reason.MODEL_FILE_MISSING
        assert "m-Q4_K_M.gguf" in failed.error.text


async def test_a_registry_that_breaks_takes_no_model_with_it(tmp_path: Path, registry: FakeSnapshots) -> None:
    async def broken(holder: str) -> None:
        raise ConnectionError("the registry has gone mad")

    registry.release = broken  # type: ignore[method-assign]
    registry.done.set()
    async with bench(tmp_path, snapshots=registry) as on:
        other = await on.load("other")
        await on.fleet.load(SPEC, "m")
        await on.seen.state(State.LOADED)
        on.fleet.unload("m")
        await on.seen.until(lambda: bool(on.seen.gone))
        assert on.fleet.get("other").state is State.LOADED
        assert on.fleet.get("other").pid == other.pid
