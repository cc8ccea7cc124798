"""Disks that are full, fail, or may not be written."""

import contextlib
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import anyio
import anyio.from_thread
import pytest
from slipway_registry.jobs.queue import QueueSettings
from slipway_registry.jobs.records import Download, State, WaitReason
from slipway_registry.transfer.choice import Transport
from slipway_service.fault import Fault, Reason

from tests.faults.patience import PATIENT
from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.hub.faults import HoldAfter
from tests.integration.registry.engines import PATIENCE, engine_in

pytestmark = pytest.mark.anyio

MIB = 1 << 20
NOBODY = 65534
QUEUE = QueueSettings(progress_interval=0.02, disk_interval=0.05, housekeeping_interval=600.0)


@dataclass
class Disk:
    """What the file system says of itself, and how often it was asked; writes fail with ``code`` while that is set.

    What files below ``full_of`` take is not free.
    """

    free: int = 1 << 40
    total: int = 1 << 40
    code: int | None = None
    asked: int = 0
    full_of: Path | None = None

    @property
    def available(self) -> int:
        """Bytes."""
        return self.free - (allocated(self.full_of) if self.full_of else 0)


def allocated(directory: Path) -> int:
    """Bytes that the files below a directory take, which may come and go meanwhile."""
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.lstat().st_blocks * 512
    return total


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    state = Disk()
    pwrite = os.pwrite

    def statvfs(_: object) -> SimpleNamespace:
        state.asked += 1
        return SimpleNamespace(f_bavail=state.available // 4096, f_blocks=state.total // 4096, f_frsize=4096)

    def failing_pwrite(fd: int, data: memoryview, offset: int) -> int:
        if state.code is not None:
            raise OSError(state.code, os.strerror(state.code))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "statvfs", statvfs)
    monkeypatch.setattr(os, "pwrite", failing_pwrite)
    return state


async def test_what_does_not_fit_now_waits_for_space(hub: HubEmulator, tmp_path: Path, disk: Disk) -> None:
    repo = hub.add_repo("org/m", {"model.gguf": Random(8 * MIB)})
    disk.free = 4 * MIB
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        created = await bench.create(repo)
        waits = await bench.told.until_download(created.id, lambda found: found.waiting_for is WaitReason.DISK)
        assert waits.failure
        assert waits.failure.facts == {"needed": str(8 * MIB), "free": str(4 * MIB), "reserve": "0"}
        assert hub.journal.requests() == []
        assert State.RUNNING not in bench.told.states(created.id)
        disk.free = 16 * MIB
        assert (await bench.told.end(created.id)).state is State.SUCCEEDED


async def test_what_can_never_fit_fails_before_its_first_byte(hub: HubEmulator, tmp_path: Path, disk: Disk) -> None:
    repo = hub.add_repo("org/m", {"model.gguf": Random(8 * MIB)})
    disk.free, disk.total = 4 * MIB, 6 * MIB
    async with engine_in(tmp_path, hub.endpoint, disk_reserve=MIB, **PATIENT) as bench:
        failed = await bench.fetch(repo)
        assert failed.failure
        assert (failed.state, failed.failure.reason) == (State.FAILED, Reason.DISK_FULL)
        expected = {"needed": str(8 * MIB), "free": str(4 * MIB), "reserve": str(MIB)}
        assert failed.failure.facts == expected
        assert hub.journal.requests() == []


async def test_two_downloads_do_not_both_get_the_last_space(hub: HubEmulator, tmp_path: Path, disk: Disk) -> None:
    one = hub.add_repo("org/one", {"model.gguf": Random(8 * MIB, 1)})
    two = hub.add_repo("org/two", {"model.gguf": Random(8 * MIB, 2)})
    disk.free, disk.full_of = 13 * MIB, tmp_path / "hub"
    hold = HoldAfter(0)
    hub.faults.add(hold, origin="cdn")
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        first = await bench.create(one)
        await bench.told.state(first.id, State.RUNNING)
        second = await bench.create(two)
        await bench.told.until(lambda: bench.told.downloads(second.id)[-1].waiting_for is WaitReason.DISK)
        hold.release()
        assert (await bench.told.end(first.id)).state is State.SUCCEEDED
        assert State.RUNNING not in bench.told.states(second.id)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
async def test_a_disk_that_fills_meanwhile_puts_the_download_back(
    hub: HubEmulator, tmp_path: Path, disk: Disk, code: int
) -> None:
    repo = hub.add_repo("org/m", {"model.gguf": Random(40 * MIB)})
    hold = HoldAfter(2 * MIB)
    hub.faults.add(hold, origin="cdn")
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        created = await bench.create(repo)
        await bench.told.some_bytes(created.id, 10 * MIB)
        disk.code, disk.free = code, 0
        hold.release()
        full = await bench.told.until_download(created.id, lambda found: found.waiting_for is WaitReason.DISK)
        assert full.state is State.QUEUED
        assert full.failure
        assert full.failure.reason is Reason.DISK_FULL
        (missing,) = full.failure.preconditions
        assert missing.type == "DISK"
        assert missing.subject.startswith(str(tmp_path / "hub"))
        disk.code, disk.free = None, 1 << 40
        done = await bench.told.end(created.id)
        assert done.state is State.SUCCEEDED
        assert done.progress.resumed_bytes >= 10 * MIB


async def test_space_is_looked_for_now_and_then_only(hub: HubEmulator, tmp_path: Path, disk: Disk) -> None:
    large = hub.add_repo("org/large", {"model.gguf": Random(8 * MIB)})
    small = hub.add_repo("org/small", {"config.json": b"{}"})
    disk.free = 4 * MIB
    async with engine_in(tmp_path, hub.endpoint, queue=replace(QUEUE, disk_interval=600.0), **PATIENT) as bench:
        waiting = await bench.create(large)
        await bench.told.until_download(waiting.id, lambda found: found.waiting_for is WaitReason.DISK)
        assert (await bench.fetch(small)).state is State.SUCCEEDED
        assert disk.asked == 2  # once for each
        disk.free = 16 * MIB
        await bench.scheduler.pause(waiting.id)
        await bench.scheduler.resume(waiting.id)  # the caller knows better
        assert (await bench.told.end(waiting.id)).state is State.SUCCEEDED


class FastClock:
    """A clock on which ten minutes take a tenth of a second, and what it was asked to wait for."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return anyio.current_time() * 6000

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await anyio.sleep(seconds / 6000)


async def test_a_quota_that_only_writing_meets_is_tried_ever_more_seldom(
    hub: HubEmulator, tmp_path: Path, disk: Disk
) -> None:
    """statvfs tells of the file system, not of a project's quota on it."""
    repo = hub.add_repo("org/m", {"model.gguf": Random(8 * MIB)})
    clock = FastClock()
    queue = replace(QUEUE, disk_interval=10.0, disk_patience=100.0, progress_interval=601.0)
    async with engine_in(tmp_path, hub.endpoint, queue=queue, clock=clock, **PATIENT) as bench:
        disk.code = errno.EDQUOT
        created = await bench.create(repo)
        await bench.told.until(lambda: bench.told.states(created.id).count(State.RUNNING) >= 6)
        disk.code = None
        assert (await bench.told.end(created.id)).state is State.SUCCEEDED
    assert [wait for wait in clock.waits if wait <= 100.0][:5] == [20.0, 40.0, 80.0, 100.0, 100.0]


@contextlib.contextmanager
def unreadable() -> Iterator[None]:
    """What was written cannot be read back, within the block."""

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "preadv", fail)
        yield


def assert_unreadable(failed: Download) -> None:
    assert failed.failure
    assert (failed.state, failed.failure.reason) == (State.FAILED, Reason.DISK_FAULT)
    assert failed.failure.facts["errno"] == "EIO"


async def test_a_disk_that_cannot_be_read_back_is_named(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {"model.gguf": Random(8 * MIB)}, xet=True)
    async with engine_in(tmp_path, hub.endpoint, transport=Transport.XET, **PATIENT) as bench:
        with unreadable():
            assert_unreadable(await bench.fetch(repo))
        assert not bench.snapshot(repo).exists()
        assert (await bench.fetch(repo)).state is State.SUCCEEDED


async def test_what_an_earlier_run_left_and_cannot_be_read_back_is_named(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {"model.gguf": Random(8 * MIB)})
    hold = HoldAfter(MIB)
    hub.faults.add(hold, origin="cdn")
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        created = await bench.create(repo)
        await bench.told.some_bytes(created.id, MIB)
    with unreadable():
        async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
            # It ends at once: with what is held it would not get on.
            assert_unreadable(await bench.told.end(created.id))
            assert not bench.snapshot(repo).exists()
    hold.release()
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        assert (await bench.fetch(repo)).state is State.SUCCEEDED


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS])
async def test_a_disk_that_fails_is_named(hub: HubEmulator, tmp_path: Path, disk: Disk, code: int) -> None:
    repo = hub.add_repo("org/m", {"model.gguf": Random(8 * MIB)})
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        disk.code = code
        failed = await bench.fetch(repo)
        assert failed.failure
        assert (failed.state, failed.failure.reason) == (State.FAILED, Reason.DISK_FAULT)
        assert failed.failure.facts["errno"] == errno.errorcode[code]
        assert failed.failure.facts["path"].startswith(str(tmp_path / "hub"))
        disk.code = None
        assert (await bench.fetch(repo)).state is State.SUCCEEDED


async def test_a_cache_that_cannot_be_written_is_named(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {"config.json": b"{}"})
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        bench.paths(repo).root.write_text("in the way")
        failed = await bench.fetch(repo)
        assert failed.failure
        assert (failed.state, failed.failure.reason) == (State.FAILED, Reason.DISK_FAULT)
        assert failed.failure.facts["errno"] in ("ENOTDIR", "EEXIST")


async def test_a_cache_that_goes_read_only_while_publishing(
    hub: HubEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = hub.add_repo("org/m", {"config.json": b"{}"})

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / "hub" / "x"))

    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        with monkeypatch.context() as patch:
            patch.setattr("slipway_registry.cache.publish.replace_file", refuse)
            failed = await bench.fetch(repo)
        assert failed.failure
        assert (failed.state, failed.failure.reason) == (State.FAILED, Reason.DISK_FAULT)
        assert failed.failure.facts["errno"] == "EROFS"
        assert (await bench.fetch(repo)).state is State.SUCCEEDED


async def test_a_state_disk_that_is_full_delays_and_loses_nothing(
    hub: HubEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = hub.add_repo("org/m", {"config.json": b"{}"})
    monkeypatch.setattr("slipway_registry.jobs.ledger.STORE_RETRY", 0.01)
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        save, left = bench.store.save, 6

        def full(download: Download) -> Download:
            nonlocal left
            if left:
                left -= 1
                raise Fault(Reason.DISK_FULL, "no space")
            return save(download)

        monkeypatch.setattr(bench.store, "save", full)
        done = await bench.fetch(repo)
        assert bench.told.states(done.id) == [State.QUEUED, State.RUNNING, State.VERIFYING, State.SUCCEEDED]
        assert left == 0


async def test_a_state_disk_that_fails_while_house_is_kept_stops_nothing(
    hub: HubEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = hub.add_repo("org/m", {"config.json": b"{}"})
    failed = anyio.Event()

    def fail() -> None:
        anyio.from_thread.run_sync(failed.set)
        raise Fault(Reason.DISK_FAULT, "disk I/O error")

    async with engine_in(tmp_path, hub.endpoint, queue=replace(QUEUE, housekeeping_interval=0.01), **PATIENT) as bench:
        with monkeypatch.context() as patch:
            patch.setattr(bench.store, "checkpoint", fail)
            with anyio.fail_after(PATIENCE):
                await failed.wait()
        assert (await bench.fetch(repo)).state is State.SUCCEEDED


async def test_a_state_disk_that_is_full_does_not_keep_it_from_stopping(
    hub: HubEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = hub.add_repo("org/m", {"model.gguf": Random(8 * MIB)})
    hold = HoldAfter(2 * MIB)
    hub.faults.add(hold, origin="cdn")

    def full(_: object) -> Download:
        raise Fault(Reason.DISK_FULL, "no space")

    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        created = await bench.create(repo)
        await bench.told.some_bytes(created.id, MIB)
        monkeypatch.setattr(bench.store, "save", full)
    hold.release()
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        done = await bench.told.end(created.id)
        assert (done.state, done.progress.resumed_bytes > 0) == (State.SUCCEEDED, True)


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts small file systems; needs root."""
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        point = tmp_path / f"tmpfs{len(mounted)}"
        point.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", point], check=True)
        mounted.append(point)
        return point

    yield mount
    for point in mounted:
        subprocess.run(["umount", point], check=True)


@pytest.mark.full
async def test_a_real_disk_that_is_full(hub: HubEmulator, tmpfs: Callable[[int], Path]) -> None:
    point = tmpfs(64 * MIB)
    repo = hub.add_repo("org/m", {"model.gguf": Random(32 * MIB)})
    large = hub.add_repo("org/large", {"model.gguf": Random(80 * MIB)})
    filler = point / "filler"
    filler.write_bytes(bytes(40 * MIB))
    async with engine_in(point, hub.endpoint, **PATIENT) as bench:
        failed = await bench.fetch(large)
        assert failed.failure
        assert failed.failure.reason is Reason.DISK_FULL
        created = await bench.create(repo)
        await bench.told.until(lambda: bench.told.downloads(created.id)[-1].waiting_for is WaitReason.DISK)
        filler.unlink()
        assert (await bench.told.end(created.id)).state is State.SUCCEEDED


@pytest.mark.full
async def test_a_real_read_only_mount(hub: HubEmulator, tmp_path: Path) -> None:
    """Needs root."""
    repo = hub.add_repo("org/m", {"config.json": b"{}"})
    mount = partial(subprocess.run, check=True)
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        root = bench.paths(repo).root
        root.mkdir()
        mount(["mount", "--bind", root, root])
        try:
            mount(["mount", "-o", "remount,ro,bind", root])
            failed = await bench.fetch(repo)
            mount(["mount", "-o", "remount,rw,bind", root])
            assert failed.failure
            assert (failed.state, failed.failure.reason) == (State.FAILED, Reason.DISK_FAULT)
            assert failed.failure.facts["errno"] == "EROFS"
            assert failed.failure.facts["path"].startswith(str(root))
            assert (await bench.fetch(repo)).state is State.SUCCEEDED
        finally:
            mount(["umount", root])


@pytest.mark.full
async def test_a_real_directory_that_may_not_be_written(hub: HubEmulator, tmp_path: Path) -> None:
    """Needs root, to be somebody else for a while."""
    repo = hub.add_repo("org/m", {"config.json": b"{}"})
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        for path in (tmp_path / "state", *(tmp_path / "state").iterdir()):
            os.chown(path, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            failed = await bench.fetch(repo)
        finally:
            os.seteuid(0)
        assert failed.failure
        assert (failed.state, failed.failure.reason) == (State.FAILED, Reason.DISK_FAULT)
        assert failed.failure.facts["errno"] == "EACCES"
        assert (await bench.fetch(repo)).state is State.SUCCEEDED
