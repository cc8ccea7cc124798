"""The cache's directory goes while the registry works, as when its mount does."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from slipway_registry.cache.hold import Hold
from slipway_registry.cache.prune import Rules
from slipway_registry.transfer.budget import Claim, DiskBudget
from slipway_service.fault import Fault, Reason
from slipway_service.weights.names import BlobId, Commit, RepoId, Revision

from tests.unit.registry.cache.caches import Cache

pytestmark = pytest.mark.anyio

REPO, MAIN, COMMIT = RepoId("org/m"), Revision("main"), Commit("a" * 40)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path)
    made.publish(REPO, COMMIT, {"f": b"x"})
    yield made
    made.close()


async def test_nothing_is_taken_for_deleted_and_all_is_there_when_it_comes_back(cache: Cache) -> None:
    hold = Hold(repo=REPO, revision=MAIN, selection=None, holder="h", claim="", ttl=60.0)
    pin, _, _ = await cache.keeper.pin(hold)
    before = cache.index.find(REPO, MAIN)
    away = cache.hub.rename(cache.hub.with_name("away"))
    for call in (
        cache.keeper.rescan(),
        cache.keeper.find(REPO, MAIN),
        cache.keeper.get(before.name),
        cache.keeper.pin(hold),
        cache.pruner.prune(Rules(quota=0), validate_only=False),
        cache.remover.delete(before.name),
        cache.remover.empty_trash(),
    ):
        with pytest.raises(Fault, match=f"{cache.hub} .*mount it again") as fault:
            await call
        assert fault.value.reason is Reason.DISK_FAULT
    assert (cache.pins.all(), cache.index.all()) == ([pin], [before])
    away.rename(cache.hub)
    await cache.keeper.rescan()
    assert cache.index.find(REPO, MAIN) == before


@pytest.mark.parametrize(
    "write",
    [
        lambda cache: cache.shelf.prepare(REPO),
        lambda cache: cache.shelf.place(REPO, BlobId("1" * 64)),
        lambda cache: cache.publisher.publish(REPO, COMMIT, [], []),
        lambda cache: DiskBudget(cache.hub).claim("job", {"etag": Claim(1, cache.hub / "data")}),
    ],
)
def test_no_other_disk_is_filled_in_its_place(cache: Cache, write: Callable[[Cache], object]) -> None:
    cache.hub.rename(cache.hub.with_name("away"))
    with pytest.raises(Fault, match="mount it again"):
        write(cache)
    assert not cache.hub.exists()
