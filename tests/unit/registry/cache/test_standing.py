"""What callers see of a snapshot: its weight, its damage, and whether anything has changed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from slipway_registry.cache.snapshot import Snapshot
from slipway_registry.cache.verify import FindingKind
from slipway_registry.rpc import snapshot_messages as messages
from slipway_service.weights.names import Commit, RepoId, Revision

from tests.unit.registry.cache.caches import Cache

pytestmark = pytest.mark.anyio

REPO, COMMIT, OTHER = RepoId("org/m"), Commit("a" * 40), Commit("b" * 40)
FILES = {"config.json": b"{}", "one.bin": b"w" * 1000, "same.bin": b"w" * 1000, "other.bin": b"o" * 500}


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path)
    made.publish(REPO, COMMIT, FILES)
    yield made
    made.close()


async def found(cache: Cache) -> Snapshot:
    return await cache.keeper.find(REPO, Revision(COMMIT))


async def test_files_of_another_length_than_theirs_do_not_count_as_present(cache: Cache) -> None:
    whole = await found(cache)
    assert (whole.present_bytes, whole.exclusive_bytes) == (1502, 1502)  # each content once
    root = cache.paths(REPO).snapshot(COMMIT)
    os.truncate(root / "one.bin", 10)
    os.truncate(root / "other.bin", 3_000_000)
    now = await found(cache)
    assert now.present == {"config.json"}
    assert now.present_bytes == 2
    assert now.exclusive_bytes == 2 + 10 + 3_000_000  # which would come free


async def test_a_file_that_is_too_long_is_damaged_and_one_that_is_too_short_not_all_there(cache: Cache) -> None:
    root = cache.paths(REPO).snapshot(COMMIT)
    os.truncate(root / "one.bin", 10)
    os.truncate(root / "other.bin", 3_000_000)
    snapshot = await found(cache)
    findings = {it.path: (it.kind, it.detail) for it in cache.verify(snapshot, snapshot.listing)}
    assert findings == {
        "one.bin": (FindingKind.MISSING, "it has 10 bytes instead of 1000"),
        "same.bin": (FindingKind.MISSING, "it has 10 bytes instead of 1000"),
        "other.bin": (FindingKind.DAMAGED, "it has 3000000 bytes instead of 500"),
    }


async def test_damage_is_counted_by_files(cache: Cache) -> None:
    snapshot = await found(cache)
    (cache.paths(REPO).snapshot(COMMIT) / "one.bin").write_bytes(b"x" * 1000)
    assert len(cache.verify(snapshot, snapshot.listing)) == 2
    await cache.keeper.refresh([REPO], anew=True)
    assert messages.snapshot(await found(cache)).damaged_count == 2


async def test_the_etag_changes_when_a_sibling_goes(cache: Cache) -> None:
    """What its own deletion would free is another then."""
    cache.publish(REPO, OTHER, {"one.bin": FILES["one.bin"]})
    before = await found(cache)
    await cache.remover.delete((await cache.keeper.find(REPO, Revision(OTHER))).name)
    after = await found(cache)
    assert (before.exclusive_bytes, after.exclusive_bytes) == (502, 1502)
    assert before.etag != after.etag
    assert after.etag == (await found(cache)).etag


async def test_the_etag_changes_when_it_is_no_longer_known_which_files_the_commit_has(cache: Cache) -> None:
    before = await found(cache)
    cache.paths(REPO).tree(COMMIT).unlink()
    after = await found(cache)
    assert (before.complete, after.complete) == (True, False)
    assert before.etag != after.etag
