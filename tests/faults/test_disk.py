"""Disks that are full, fail, or may not be written."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from slipway_registry.jobs.records import Download, State, WaitReason
from slipway_service.fault import Fault, Reason

from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.hub.faults import StallAfter
from tests.integration.registry.engines import engine_in

pytestmark = pytest.mark.anyio

MIB = 1 << 20


@dataclass
class Disk:
    """What the file system says of itself; writes fail with ``code`` while that is set."""

    free: int = 1 << 40
    total: int = 1 << 40
    code: int | None = None


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    state = Disk()
    pwrite = os.pwrite

    def statvfs(_: object) -> SimpleNamespace:
        return SimpleNamespace(f_bavail=state.free // 4096, f_blocks=state.total // 4096, f_frsize=4096)

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
    async with engine_in(tmp_path, hub.endpoint) as bench:
        created = await bench.create(repo)
        await bench.told.until(lambda: bench.told.downloads(created.id)[-1].waiting_for is WaitReason.DISK)
        assert hub.journal.requests() == []
        assert State.RUNNING not in bench.told.states(created.id)
        disk.free = 16 * MIB
        assert (await bench.told.end(created.id)).state is State.SUCCEEDED


async def test_what_can_never_fit_fails_before_its_first_byte(hub: HubEmulator, tmp_path: Path, disk: Disk) -> None:
    repo = hub.add_repo("org/m", {"model.gguf": Random(8 * MIB)})
    disk.free, disk.total = 4 * MIB, 6 * MIB
    async with engine_in(tmp_path, hub.endpoint, disk_reserve=MIB) as bench:
        failed = await bench.fetch(repo)
        assert failed.failure
        assert (failed.state, failed.failure.reason) == (State.FAILED, Reason.DISK_FULL)
        expected = {"needed": str(8 * MIB), "free": str(4 * MIB), "reserve": str(MIB)}
        assert failed.failure.facts == expected
        assert hub.journal.requests() == []


async def test_two_downloads_do_not_both_get_the_last_space(hub: HubEmulator, tmp_path: Path, disk: Disk) -> None:
    one = hub.add_repo("org/one", {"model.gguf": Random(8 * MIB, 1)})
    two = hub.add_repo("org/two", {"model.gguf": Random(8 * MIB, 2)})
    disk.free = 12 * MIB
    hub.faults.add(StallAfter(0), origin="cdn", times=1)
    async with engine_in(tmp_path, hub.endpoint) as bench:
        first = await bench.create(one)
        await bench.told.state(first.id, State.RUNNING)
        second = await bench.create(two)
        disk.free = 4 * MIB  # the first has allocated its own
        await bench.told.until(lambda: bench.told.downloads(second.id)[-1].waiting_for is WaitReason.DISK)
        assert (await bench.told.end(first.id)).state is State.SUCCEEDED


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
async def test_a_disk_that_fills_meanwhile_puts_the_download_back(
    hub: HubEmulator, tmp_path: Path, disk: Disk, code: int
) -> None:
    repo = hub.add_repo("org/m", {"model.gguf": Random(40 * MIB)})
    stall = hub.faults.add(StallAfter(2 * MIB), origin="cdn")
    async with engine_in(tmp_path, hub.endpoint) as bench:
        created = await bench.create(repo)
        await bench.told.some_bytes(created.id, 10 * MIB)
        disk.code, disk.free = code, 0
        hub.faults.remove(stall)
        full = await bench.told.until_download(created.id, lambda found: found.waiting_for is WaitReason.DISK)
        assert full.state is State.QUEUED
        assert full.failure
        assert full.failure.reason is Reason.DISK_FULL
        disk.code, disk.free = None, 1 << 40
        done = await bench.told.end(created.id)
        assert done.state is State.SUCCEEDED
        assert done.progress.resumed_bytes >= 10 * MIB


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS])
async def test_a_disk_that_fails_is_named(hub: HubEmulator, tmp_path: Path, disk: Disk, code: int) -> None:
    repo = hub.add_repo("org/m", {"model.gguf": Random(8 * MIB)})
    async with engine_in(tmp_path, hub.endpoint) as bench:
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
    async with engine_in(tmp_path, hub.endpoint) as bench:
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

    async with engine_in(tmp_path, hub.endpoint) as bench:
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
    async with engine_in(tmp_path, hub.endpoint) as bench:
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
    async with engine_in(point, hub.endpoint) as bench:
        failed = await bench.fetch(large)
        assert failed.failure
        assert failed.failure.reason is Reason.DISK_FULL
        created = await bench.create(repo)
        await bench.told.until(lambda: bench.told.downloads(created.id)[-1].waiting_for is WaitReason.DISK)
        filler.unlink()
        assert (await bench.told.end(created.id)).state is State.SUCCEEDED
