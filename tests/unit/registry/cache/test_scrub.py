"""The background check: what it hashes when, and what it says."""

import errno
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from slipway_registry.cache.hold import Hold
from slipway_registry.cache.paced import PIECE_BYTES, PacedHash, idly
from slipway_registry.cache.scrub import Scrub, ScrubSettings
from slipway_registry.cache.snapshot import Snapshot
from slipway_registry.transfer.halt import Halt, Halted
from slipway_registry.transfer.hashing import OneCore, hash_file
from slipway_service.fault import Fault, Reason
from slipway_service.weights.names import Commit, RepoId, Revision
from slipway_service.weights.selection import PatternSelection

from tests.unit.registry.cache.caches import Cache

pytestmark = pytest.mark.anyio

COMMIT = "a" * 40
DAY = 86_400.0
FILES = {"a.bin": b"1" * 100, "b.bin": b"2" * 200, "c.bin": b"3" * 300}


@dataclass(slots=True)
class Counts:
    """What an observer was told."""

    bytes: int = 0
    found: int = 0
    checked: list[str] = field(default_factory=list)

    def hashed(self, count: int) -> None:
        self.bytes += count

    def damaged(self) -> None:
        self.found += 1


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path)
    yield made
    made.close()


def scrub(cache: Cache, counts: Counts | None = None) -> Scrub:
    return Scrub(cache.keeper, cache.store, ScrubSettings(interval=DAY, rate=1e12), counts or Counts())


def snapshot_of(cache: Cache, repo: str = "org/m") -> Snapshot:
    return cache.index.find(RepoId(repo), Revision(COMMIT))


def content(cache: Cache, path: str) -> Path:
    return (cache.paths("org/m").snapshot(Commit(COMMIT)) / path).resolve()


def flip(path: Path) -> None:
    """Damage as a disk does it: the content, and not its times."""
    times = path.stat()
    path.write_bytes(b"x" + path.read_bytes()[1:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


async def test_what_was_never_hashed_is_and_then_rests_for_the_interval(cache: Cache) -> None:
    cache.publish("org/m", COMMIT, FILES)
    await cache.keeper.rescan()
    counts = Counts()
    await scrub(cache, counts).run()
    assert (counts.bytes, counts.found) == (600, 0)
    assert all(file.verify_time for file in snapshot_of(cache).files)
    await scrub(cache, counts).run()
    assert counts.bytes == 600
    cache.time.seconds += DAY
    await scrub(cache, counts).run()
    assert counts.bytes == 1200


async def test_the_longest_unchecked_comes_first(cache: Cache) -> None:
    for repo in ("org/new", "org/old"):
        cache.publish(repo, COMMIT, {"f.bin": repo.encode()})
    await cache.keeper.rescan()
    for repo, at in (("org/new", 2000.0), ("org/old", 1000.0)):
        (file,) = snapshot_of(cache, repo).files
        status = (cache.paths(repo).snapshot(Commit(COMMIT)) / "f.bin").stat()
        cache.verified(repo, file.file, status, at=at)
        await cache.keeper.refresh([RepoId(repo)], anew=True)
    due = scrub(cache).due()
    assert due is not None
    assert due[0].repo == "org/old"


async def test_damage_is_told_and_the_snapshot_is_not_complete_any_more(cache: Cache) -> None:
    cache.publish("org/m", COMMIT, FILES)
    await cache.keeper.rescan()
    assert snapshot_of(cache).complete
    flip(content(cache, "b.bin"))
    before = len(cache.told.changes)
    counts = Counts()
    await scrub(cache, counts).run()
    found = snapshot_of(cache)
    assert (counts.found, found.complete, len(found.damaged)) == (1, False, 1)
    assert cache.told.changes[before:][-1].now == found
    hold = Hold(
        repo=found.repo,
        revision=Revision(COMMIT),
        selection=PatternSelection(include=("b.bin",)),
        holder="h",
        claim="",
        ttl=1.0,
    )
    with pytest.raises(Fault) as refused:
        await cache.keeper.pin(hold)
    assert refused.value.reason is Reason.SNAPSHOT_INCOMPLETE
    bytes_before = counts.bytes
    await scrub(cache, counts).run()
    assert counts.bytes == bytes_before  # known to be damaged: nothing new to find


async def test_what_cannot_be_read_is_told_and_tried_again_a_day_later(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.publish("org/m", COMMIT, FILES)
    await cache.keeper.rescan()

    def broken(*_: object) -> str:
        raise OSError(errno.EIO, "Input/output error")

    counts = Counts()
    work = scrub(cache, counts)
    with monkeypatch.context() as patch:
        patch.setattr(PacedHash, "__call__", broken)
        with anyio.fail_after(20):
            await work.run()
    assert counts.found == 3
    await work.run()
    assert counts.bytes == 0
    cache.time.seconds += DAY
    await work.run()
    assert counts.bytes == 600


async def test_a_restart_costs_the_file_that_was_being_hashed(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.publish("org/m", COMMIT, FILES)
    await cache.keeper.rescan()
    seen: list[str] = []

    def interrupted(self: PacedHash, path: Path, etag: str, core: OneCore, halt: Halt, add: object) -> str:
        if len(seen) == 2:
            raise Halted
        seen.append(path.name)
        return hash_file(path, etag, core, halt, lambda _: None)

    with monkeypatch.context() as patch:
        patch.setattr(PacedHash, "__call__", interrupted)
        with pytest.raises(Halted):
            await scrub(cache).run()
    assert seen == ["a.bin", "b.bin"]
    counts = Counts()
    await cache.keeper.refresh([RepoId("org/m")], anew=True)
    await scrub(cache, counts).run()
    assert counts.bytes == 300


class Waits(Halt):
    """Time passes by waiting alone."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("size", [0, 1, 4096, PIECE_BYTES, 5 * PIECE_BYTES + 7])
def test_the_pace_is_kept_and_the_hash_is_right(tmp_path: Path, size: int) -> None:
    file = tmp_path / "f"
    file.write_bytes(os.urandom(size))
    halt, done = Waits(), list[int]()
    hasher = PacedHash(PIECE_BYTES / 2, clock=lambda: halt.now)
    for etag in ("0" * 64, "0" * 40):
        expected = hash_file(file, etag, OneCore(), Halt(), lambda _: None)
        assert hasher(file, etag, OneCore(), halt, done.append) == expected
    assert sum(done) == 2 * size
    least = (sum(done) - PIECE_BYTES) / (PIECE_BYTES / 2)
    assert max(0.0, least) <= halt.now <= sum(done) / (PIECE_BYTES / 2)


def test_idle_work_has_a_priority_and_a_thread_of_its_own() -> None:
    here = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    seen: list[int] = []
    idly(lambda: seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
    assert seen == [19]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == here
    with pytest.raises(ZeroDivisionError):
        idly(lambda: print(1 // 0))


async def test_it_ends_at_once_when_the_registry_does(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.publish("org/m", COMMIT, {"large.bin": bytes(3 * PIECE_BYTES)})
    await cache.keeper.rescan()
    waiting = threading.Event()
    wait = Halt.wait

    def told(halt: Halt, seconds: float) -> None:
        waiting.set()
        wait(halt, seconds)

    monkeypatch.setattr(Halt, "wait", told)
    slow = Scrub(cache.keeper, cache.store, ScrubSettings(interval=DAY, rate=1.0), Counts())
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(slow.run)
            await anyio.to_thread.run_sync(waiting.wait)
            tasks.cancel_scope.cancel()
