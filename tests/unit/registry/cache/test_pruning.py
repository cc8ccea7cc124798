"""What a prune takes, what it says beforehand, and what the file system says afterwards."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
import structlog
from slipway_registry.cache.delete import Removal
from slipway_registry.cache.hold import Hold
from slipway_registry.cache.prune import Plan, PruneReason, Rules
from slipway_registry.cache.records import Key
from slipway_registry.cache.usage import read_usage
from slipway_registry.cache.wanted import Wanted
from slipway_service.weights.names import Commit, RepoId, Revision

from tests.unit.registry.cache.caches import Cache

pytestmark = pytest.mark.anyio

BLOCK = 1 << 16
"""A multiple of every file system's block, so that what files hold is what they take."""

DAY = 86_400.0
COMMITS = ["a" * 40, "b" * 40, "c" * 40]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path, partial_retention=7 * DAY)
    made.time.seconds = time.time()
    yield made
    made.close()


def taken(hub: Path) -> int:
    """What model folders take on the disk, as `du` has it: blocks of every inode once, links and folders left out."""
    blocks = {}
    for parent, _, names in os.walk(hub):
        for name in names:
            status = os.lstat(os.path.join(parent, name))
            if not os.path.islink(os.path.join(parent, name)) and status.st_size >= BLOCK:
                blocks[status.st_ino] = status.st_blocks * 512
    return sum(blocks.values())


def content(seed: int, blocks: int = 1) -> bytes:
    return bytes([seed]) * (BLOCK * blocks)


async def publish(cache: Cache, repo: str, files: dict[str, bytes], commit: str = COMMITS[0]) -> None:
    cache.publish(repo, commit, files)
    await cache.keeper.used(RepoId(repo), Commit(commit))
    cache.time.seconds += 1


async def prune(cache: Cache, rules: Rules) -> Plan:
    """Prune, after a dry run that has to say the same; what it says is freed has to be free."""
    before = taken(cache.hub)
    would = await cache.pruner.prune(rules, validate_only=True)
    assert taken(cache.hub) == before
    done = await cache.pruner.prune(rules, validate_only=False)
    assert (done.items, done.pinned_count) == (would.items, would.pinned_count)
    assert sum(item.freed_bytes for item in done.items) == before - taken(cache.hub)
    return done


def repos(plan: Plan) -> list[tuple[str, PruneReason]]:
    return [(item.repo, item.reason) for item in plan.items]


def leave(cache: Cache, repo: str, name: str, data: bytes) -> Path:
    """A partial as the engine leaves it: its data, and a small file about it."""
    directory = cache.paths(repo).ingest / name
    directory.mkdir(parents=True)
    (directory / "data").write_bytes(data)
    (directory / "frontier").write_bytes(b"x")
    return directory


async def test_partials_go_when_nobody_has_wanted_them_for_their_retention(cache: Cache) -> None:
    await publish(cache, "org/m", {"a": content(1)})
    ours = leave(cache, "org/m", "f" * 64, content(2))
    theirs = cache.paths("org/m").blobs / f"{'e' * 64}.0123abcd.incomplete"
    theirs.write_bytes(content(3))
    orphan = cache.paths("org/m").blobs / ("d" * 64)
    orphan.write_bytes(content(4))
    assert repos(await prune(cache, Rules(unused_for=100 * DAY))) == []
    cache.time.seconds += 6 * DAY
    assert repos(await prune(cache, Rules(unused_for=100 * DAY))) == []
    cache.time.seconds += 2 * DAY
    plan = await cache.pruner.prune(Rules(unused_for=100 * DAY), validate_only=True)
    (item,) = plan.items
    small = 4096  # what the file system takes for the note beside our partial
    assert (item.commit, item.reason) == (None, PruneReason.ABANDONED)
    assert 3 * BLOCK <= item.freed_bytes <= 3 * BLOCK + small
    assert 7 * DAY <= item.idle < 9 * DAY
    before = taken(cache.hub)
    assert (await cache.pruner.prune(Rules(unused_for=100 * DAY), validate_only=False)).items == plan.items
    assert before - taken(cache.hub) == 3 * BLOCK
    assert not any(path.exists() for path in (ours, theirs, orphan))
    assert cache.index.find(RepoId("org/m"), Revision("main")).complete


async def test_the_quota_takes_the_least_recently_used_until_it_is_kept(cache: Cache) -> None:
    for seed, repo in enumerate(("org/a", "org/b", "org/c", "org/d")):
        await publish(cache, repo, {"f": content(seed + 1, seed + 1)})
    await cache.keeper.used(RepoId("org/a"), Commit(COMMITS[0]))
    plan = await prune(cache, Rules(quota=5 * BLOCK))
    assert repos(plan) == [("org/b", PruneReason.QUOTA), ("org/c", PruneReason.QUOTA)]
    assert repos(await prune(cache, Rules(quota=5 * BLOCK))) == []
    assert taken(cache.hub) == 5 * BLOCK


async def test_pinned_and_kept_stay_whatever_the_quota(cache: Cache) -> None:
    for seed, (repo, ttl) in enumerate((("org/pinned", 3600.0), ("org/kept", None), ("org/free", 0.0))):
        await publish(cache, repo, {"f": content(seed + 1)})
        if ttl != 0.0:
            hold = Hold(repo=RepoId(repo), revision=Revision("main"), selection=None, holder="h", claim="", ttl=ttl)
            await cache.keeper.pin(hold)
    plan = await prune(cache, Rules(quota=0, unused_for=0.0))
    assert (repos(plan), plan.pinned_count) == ([("org/free", PruneReason.AGE)], 2)
    assert taken(cache.hub) == 2 * BLOCK


async def test_what_is_shared_frees_nothing_until_its_last_name_goes(cache: Cache) -> None:
    await publish(cache, "org/m", {"a": content(1), "b": content(2)}, COMMITS[0])
    await publish(cache, "org/m", {"a": content(1), "b": content(3)}, COMMITS[1])
    await publish(cache, "org/other", {"a": content(1)}, COMMITS[2])
    plan = await prune(cache, Rules(unused_for=0.0))
    assert [item.freed_bytes for item in plan.items] == [BLOCK, BLOCK, BLOCK]
    assert taken(cache.hub) == 0


async def test_partials_that_stay_count_against_the_quota(cache: Cache) -> None:
    await publish(cache, "org/a", {"f": content(1)})
    await publish(cache, "org/b", {"f": content(2)})
    leave(cache, "org/a", "f" * 64, content(3))
    assert repos(await prune(cache, Rules(quota=3 * BLOCK + 8192))) == []
    assert repos(await prune(cache, Rules(quota=2 * BLOCK + 8192))) == [("org/a", PruneReason.QUOTA)]


async def test_what_two_pins_hold_of_one_content_counts_once(cache: Cache) -> None:
    for repo in ("org/a", "org/b"):
        await publish(cache, repo, {"f": content(1), "g": content(1)})
        hold = Hold(repo=RepoId(repo), revision=Revision("main"), selection=None, holder="h", claim="", ttl=60.0)
        await cache.keeper.pin(hold)
    usage = read_usage(cache.index, cache.pins, cache.hub)
    assert (usage.pinned, usage.snapshots, taken(cache.hub)) == (BLOCK, BLOCK, BLOCK)
    assert [(it.pinned, it.exclusive) for it in usage.repos] == [(BLOCK, 0)] * 2


async def test_what_is_abandoned_makes_room_before_anything_that_is_used(cache: Cache) -> None:
    """The dry run reckons with it too."""
    await publish(cache, "org/a", {"f": content(1)})
    (cache.paths("org/a").blobs / ("d" * 64)).write_bytes(content(4))
    cache.time.seconds += 8 * DAY
    assert repos(await prune(cache, Rules(quota=BLOCK))) == [("org/a", PruneReason.ABANDONED)]
    assert cache.index.find(RepoId("org/a"), Revision("main")).complete


async def test_what_a_killed_deletion_left_goes_before_a_model_that_is_used(cache: Cache) -> None:
    """Without a word of it in the usage, a quota would take healthy models for what nobody sees."""
    await publish(cache, "org/a", {"f": content(1)})
    await publish(cache, "org/b", {"f": content(2)})
    orphan = cache.paths("org/a").blobs / ("d" * 64)
    orphan.write_bytes(content(4))
    await cache.keeper.rescan()
    usage = read_usage(cache.index, cache.pins, cache.hub)
    assert (usage.snapshots, usage.partials) == (2 * BLOCK, BLOCK)
    assert [it.partials for it in usage.repos] == [BLOCK, 0]
    assert repos(await prune(cache, Rules(quota=3 * BLOCK))) == []
    cache.time.seconds += 3700
    assert repos(await prune(cache, Rules(quota=3 * BLOCK))) == []
    assert repos(await prune(cache, Rules(unused_for=DAY))) == []
    with structlog.testing.capture_logs() as lines:
        assert repos(await prune(cache, Rules(quota=2 * BLOCK))) == [("org/a", PruneReason.ABANDONED)]
    assert [(line["repo"], line["freed_bytes"]) for line in lines if line["event"] == "pruned"] == [("org/a", BLOCK)]
    assert not orphan.exists()
    assert len(cache.index.all()) == 2


async def test_a_content_that_may_be_linked_in_a_moment_stays(cache: Cache) -> None:
    await publish(cache, "org/a", {"f": content(1)})
    fresh = cache.paths("org/a").blobs / ("d" * 64)
    fresh.write_bytes(content(4))
    await prune(cache, Rules(quota=BLOCK))
    assert fresh.exists()


async def test_a_dry_run_spares_what_is_being_downloaded(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, repo in enumerate(("org/coming", "org/idle")):
        await publish(cache, repo, {"f": content(seed + 1)})
    under_way = frozenset({(RepoId("org/coming"), Commit(COMMITS[0]))})
    monkeypatch.setattr(Wanted, "downloading", lambda _: under_way)
    plan = await prune(cache, Rules(quota=0))
    assert (repos(plan), plan.pinned_count) == ([("org/idle", PruneReason.QUOTA)], 1)


async def test_what_a_prune_has_taken_is_in_the_log_when_its_caller_has_gone(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, repo in enumerate(("org/a", "org/b")):
        await publish(cache, repo, {"f": content(seed + 1)})
    with structlog.testing.capture_logs() as lines, anyio.CancelScope() as scope:
        delete = cache.remover.delete_if_unheld

        async def once(key: Key) -> Removal | None:
            done = await delete(key)
            scope.cancel()
            return done

        monkeypatch.setattr(cache.remover, "delete_if_unheld", once)
        await cache.pruner.prune(Rules(quota=0), validate_only=False)
    (line,) = [line for line in lines if line["event"] == "pruned"]
    assert (line["repo"], line["freed_bytes"], line["reason"]) == ("org/a", BLOCK, PruneReason.QUOTA)
    assert [it.repo for it in cache.index.all()] == ["org/b"]
