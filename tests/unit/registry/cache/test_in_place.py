"""What is written into a content in place changes no directory, and is seen all the same."""

import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from slipway_registry.cache.hold import Hold, held_files
from slipway_registry.cache.scrub import Scrub, ScrubSettings
from slipway_service.fault import Fault, Reason
from slipway_service.weights.names import Commit, RepoId, Revision
from slipway_service.weights.selection import EverySelection

from tests.unit.registry.cache.caches import Cache, Time

pytestmark = pytest.mark.anyio

REPO, COMMIT = RepoId("org/m"), Commit("a" * 40)
NAME = "model.safetensors"
DAY = 86_400.0


@pytest.fixture
async def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    # A directory that has just changed is read again in any case; here nothing but contents changes.
    monkeypatch.setattr("slipway_registry.cache.scan._RACY", 0)
    made = Cache(tmp_path)
    made.publish(REPO, COMMIT, {"config.json": b"{}", NAME: b"w" * 1000})
    await made.keeper.rescan()
    snapshot = await made.keeper.find(REPO, Revision(COMMIT))
    assert made.verify(snapshot, snapshot.listing) == []
    await made.keeper.refresh([REPO], anew=True)
    assert made.index.get(snapshot.name).complete
    return made


@pytest.fixture(autouse=True)
def closed(cache: Cache) -> Iterator[None]:
    yield
    cache.close()


def overwrite(cache: Cache) -> None:
    """Other bytes at some offset, of the next tick of the clock."""
    path = cache.paths(REPO).snapshot(COMMIT) / NAME
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(500)
        file.write(b"damage")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))


def everything() -> Hold:
    return Hold(repo=REPO, revision=Revision(COMMIT), selection=EverySelection(), holder="h", claim="", ttl=60.0)


async def test_damage_that_a_verification_finds_is_remembered(cache: Cache) -> None:
    overwrite(cache)
    snapshot = await cache.keeper.find(REPO, Revision(COMMIT))
    assert [file.verify_time is None for file in snapshot.files] == [False, True]
    assert [finding.path for finding in cache.verify(snapshot, snapshot.listing)] == [NAME]
    await cache.keeper.refresh([REPO], anew=True)
    (listed,) = cache.index.all()
    assert (listed.complete, len(listed.damaged)) == (False, 1)
    with pytest.raises(Fault) as refused:
        await cache.keeper.pin(everything())
    assert refused.value.reason is Reason.SNAPSHOT_INCOMPLETE


async def test_damage_that_is_known_is_told_from_what_is_not_there(cache: Cache) -> None:
    overwrite(cache)
    snapshot = await cache.keeper.find(REPO, Revision(COMMIT))
    cache.verify(snapshot, snapshot.listing)
    await cache.keeper.refresh([REPO], anew=True)
    snapshot = await cache.keeper.find(REPO, Revision(COMMIT))
    with pytest.raises(Fault) as refused:
        held_files(snapshot, EverySelection(), damaged=Reason.HASH_MISMATCH)
    assert refused.value.reason is Reason.HASH_MISMATCH
    assert NAME in refused.value.text
    assert "slipway cache verify --repair" in refused.value.text
    assert "lacks" not in refused.value.text
    (cache.paths(REPO).snapshot(COMMIT) / "config.json").unlink()
    snapshot = await cache.keeper.find(REPO, Revision(COMMIT))
    with pytest.raises(Fault, match=f"lacks config.json, {NAME}") as refused:
        held_files(snapshot, EverySelection(), damaged=Reason.HASH_MISMATCH)
    assert refused.value.reason is Reason.SNAPSHOT_INCOMPLETE
    assert {it.file.path for it in held_files(snapshot, None)} == {NAME}  # what is there, right or not


async def test_damage_is_remembered_if_the_file_changed_after_it_was_looked_up(cache: Cache) -> None:
    (stale,) = cache.index.all()
    overwrite(cache)
    assert [finding.path for finding in cache.verify(stale, stale.listing)] == [NAME]
    await cache.keeper.refresh([REPO], anew=True)
    assert not cache.index.get(stale.name).complete


async def test_the_scrub_counts_a_damaged_file_once(cache: Cache) -> None:
    overwrite(cache)
    found = []

    class Counts:
        def hashed(self, count: int) -> None:
            pass

        def damaged(self) -> None:
            found.append(1)

    scrub = Scrub(cache.keeper, cache.store, ScrubSettings(interval=DAY, rate=1e12), Counts())
    for _ in range(3):
        cache.time.seconds += DAY
        await scrub.run()
        assert len(found) == 1
        assert len(cache.index.all()[0].damaged) == 1


async def test_a_truncated_file_makes_its_snapshot_incomplete(cache: Cache) -> None:
    os.truncate(cache.paths(REPO).snapshot(COMMIT) / NAME, 100)
    with pytest.raises(Fault) as refused:
        await cache.keeper.pin(everything())
    assert refused.value.reason is Reason.SNAPSHOT_INCOMPLETE
    assert not (await cache.keeper.find(REPO, Revision(COMMIT))).complete


async def test_the_lists_come_to_know_within_the_interval_of_close_looks(cache: Cache) -> None:
    os.truncate(cache.paths(REPO).snapshot(COMMIT) / NAME, 100)
    before = len(cache.told.changes)
    await cache.keeper.rescan()
    assert len(cache.told.changes) == before  # a look at the directories does not tell
    await cache.keeper.rescan(closely=True)
    assert len(cache.told.changes) == before + 1
    assert not cache.index.all()[0].complete


async def test_a_running_keeper_looks_closely_now_and_then(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = 0
    truncated, looked = anyio.Event(), anyio.Event()

    async def sleep(_: Time, seconds: float) -> None:
        nonlocal pauses
        if seconds == cache.keeper.settings.content_interval:
            pauses += 1
        if pauses == 2:  # what follows the first has been done
            looked.set()
        if pauses != 1 or seconds != cache.keeper.settings.content_interval:
            await anyio.sleep_forever()
        await truncated.wait()

    monkeypatch.setattr(Time, "sleep", sleep)
    with anyio.fail_after(20):
        async with cache.keeper.running():
            os.truncate(cache.paths(REPO).snapshot(COMMIT) / NAME, 100)
            truncated.set()
            await looked.wait()
            assert not cache.index.all()[0].complete
