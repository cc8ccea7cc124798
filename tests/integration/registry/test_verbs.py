"""Pause, resume and cancel, and what they leave."""

import threading
from pathlib import Path

import anyio
import pytest
from slipway_registry.jobs.records import PauseReason, State
from slipway_registry.transfer import xet
from slipway_registry.transfer.choice import Transport
from slipway_registry.transfer.halt import Halt
from slipway_registry.transfer.partial import Partial
from slipway_service.fault import Fault, Reason

from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.hub.faults import HoldAfter, StallAfter
from tests.integration.registry.engines import PATIENCE, PATIENT, engine_in, sha256
from tests.integration.registry.traffic import asked_for

pytestmark = pytest.mark.anyio

MIB = 1 << 20
SMALL = {"config.json": b"{}", "sub/dir/readme.txt": b"deep", "empty": b""}
BOTH = pytest.mark.parametrize("transport", [Transport.HTTP, Transport.XET])


async def test_pause_and_cancel_end_a_stream_that_stands_still(
    hub: HubEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over Xet, whose library fetches ahead in threads of its own, and hands over more than is written at once."""
    repo = hub.add_repo("org/m", {"model.gguf": Random(80 * MIB)}, xet=True)
    *_, last = hub.cas.store.files[repo.head.files["model.gguf"].xet_hash or ""]
    stall = hub.faults.add(StallAfter(2 * MIB), f"xorbs/{last.xorb.hash}", origin="cas")
    write = xet._write

    def held(into: Partial, position: int, view: memoryview, halt: Halt) -> int:
        never = threading.Event()
        with halt.waking(never.set):
            write(into, position, view[: 12 * MIB], halt)
            never.wait()
        halt.check()
        raise AssertionError(into)

    async with engine_in(tmp_path, hub.endpoint, transport=Transport.XET, **PATIENT) as bench:
        with monkeypatch.context() as patch:
            patch.setattr(xet, "_write", held)
            created = await bench.create(repo)
            await bench.told.some_bytes(created.id, 12 * MIB)
            with anyio.fail_after(PATIENCE):  # a tenth of what it would stand still
                paused = await bench.scheduler.pause(created.id)
                await bench.scheduler.resume(created.id, etag=paused.etag)
                await bench.told.some_bytes(created.id, 24 * MIB)
                await bench.scheduler.cancel(created.id)
        hub.faults.remove(stall)
        anew = await bench.fetch(repo)
        assert anew.state is State.SUCCEEDED
        assert anew.progress.resumed_bytes == 24 * MIB
        assert sha256(bench.snapshot(repo) / "model.gguf") == repo.head.files["model.gguf"].blob.sha256


async def test_pause_stops_the_bytes_and_resume_goes_on(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {"model.gguf": Random(40 * MIB)})
    stall = hub.faults.add(StallAfter(2 * MIB), origin="cdn")
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        created = await bench.create(repo)
        await bench.told.some_bytes(created.id, 10 * MIB)
        paused = await bench.scheduler.pause(created.id)
        assert (paused.state, paused.pause_reason) == (State.PAUSED, PauseReason.BY_CALLER)
        hub.faults.remove(stall)
        hub.journal.clear()
        resumed = await bench.scheduler.resume(created.id, etag=paused.etag)
        assert resumed.state is State.QUEUED
        done = await bench.told.end(created.id)
        assert done.state is State.SUCCEEDED
        assert done.progress.resumed_bytes >= 10 * MIB
        assert done.attempt == 2
        figures = [progress.done_bytes for progress in bench.told.progress_of[created.id]]
        assert figures == sorted(figures)
    assert asked_for(hub.journal, 40 * MIB) == 40 * MIB - done.progress.resumed_bytes


@pytest.mark.parametrize("discard", [False, True])
async def test_cancel_keeps_or_discards_what_is_there(hub: HubEmulator, tmp_path: Path, discard: bool) -> None:
    repo = hub.add_repo("org/m", {"model.gguf": Random(40 * MIB)})
    stall = hub.faults.add(StallAfter(2 * MIB), origin="cdn")
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        created = await bench.create(repo)
        await bench.told.some_bytes(created.id, 10 * MIB)
        cancelled = await bench.scheduler.cancel(created.id, discard_partial=discard)
        assert cancelled.state is State.CANCELLED
        assert (list(bench.paths(repo).ingest.iterdir()) == []) is discard
        hub.faults.remove(stall)
        anew = await bench.fetch(repo)
        assert anew.state is State.SUCCEEDED
        assert (anew.progress.resumed_bytes > 0) is not discard


async def test_a_partial_that_another_download_needs_is_not_discarded(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {"model.gguf": Random(40 * MIB), "a": b"a"})
    hub.faults.add(hold := HoldAfter(2 * MIB), origin="cdn")
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        one, two = await bench.create(repo), await bench.create(repo, paths=["model.gguf"])
        await bench.told.some_bytes(two.id, 10 * MIB)
        await bench.scheduler.cancel(one.id, discard_partial=True)
        hub.journal.clear()
        hold.release()
        assert (await bench.told.end(two.id)).state is State.SUCCEEDED
    assert asked_for(hub.journal, 40 * MIB) <= 30 * MIB


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel"])
async def test_what_has_ended_stays_as_it_is(hub: HubEmulator, tmp_path: Path, verb: str) -> None:
    repo = hub.add_repo("org/m", SMALL)
    async with engine_in(tmp_path, hub.endpoint) as bench:
        done = await bench.fetch(repo)
        with pytest.raises(Fault) as caught:
            await getattr(bench.scheduler, verb)(done.id)
        assert caught.value.reason is Reason.DOWNLOAD_STATE_CONFLICT
        with pytest.raises(Fault) as caught:
            await getattr(bench.scheduler, verb)("0" * 32)
        assert caught.value.reason is Reason.DOWNLOAD_NOT_FOUND


async def test_a_stale_etag_changes_nothing(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", SMALL)
    hub.faults.add(HoldAfter(), "config.json")
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        created = await bench.create(repo)
        await bench.told.state(created.id, State.RUNNING)
        with pytest.raises(Fault) as caught:
            await bench.scheduler.pause(created.id, etag=created.etag)
        assert caught.value.reason is Reason.ETAG_MISMATCH
        assert (await bench.scheduler.get(created.id)).state is State.RUNNING


async def test_a_verb_that_has_been_done_already_changes_nothing(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", SMALL)
    hub.faults.add(HoldAfter(), "config.json")
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        created = await bench.create(repo)
        running = await bench.told.state(created.id, State.RUNNING)
        assert await bench.scheduler.resume(created.id, etag=running.etag) == await bench.scheduler.get(created.id)
        paused = await bench.scheduler.pause(created.id)
        assert await bench.scheduler.pause(created.id, etag=paused.etag) == await bench.scheduler.get(created.id)
        cancelled = await bench.scheduler.cancel(created.id)
        assert await bench.scheduler.cancel(created.id, etag=cancelled.etag) == cancelled
        assert bench.told.states(created.id) == [State.QUEUED, State.RUNNING, State.PAUSED, State.CANCELLED]


async def test_a_verb_that_has_been_done_already_still_wants_the_etag(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", SMALL)
    hub.faults.add(HoldAfter(), "config.json")
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        created = await bench.create(repo)
        await bench.told.state(created.id, State.RUNNING)
        for verb in (bench.scheduler.resume, bench.scheduler.pause, bench.scheduler.cancel):
            await verb(created.id)
            with pytest.raises(Fault) as caught:
                await verb(created.id, etag=created.etag)
            assert caught.value.reason is Reason.ETAG_MISMATCH


async def test_what_was_cancelled_can_be_discarded_later(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {"model.gguf": Random(40 * MIB)})
    hub.faults.add(StallAfter(2 * MIB), origin="cdn")
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        created = await bench.create(repo)
        await bench.told.some_bytes(created.id, 10 * MIB)
        await bench.scheduler.cancel(created.id)
        await bench.scheduler.cancel(created.id, discard_partial=True)
        assert list(bench.paths(repo).ingest.iterdir()) == []
