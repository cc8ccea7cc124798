"""A repository that the registry may not read, as one that another user made under umask 077."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from slipway_registry.cache import trash
from slipway_registry.cache.hold import Hold
from slipway_registry.cache.prune import Rules
from slipway_registry.cache.usage import read_usage
from slipway_service.fault import Fault, Reason
from slipway_service.weights.names import Commit, RepoId, Revision

from tests.unit.registry.cache.caches import Cache

pytestmark = pytest.mark.anyio

A, B, C = RepoId("org/a"), RepoId("org/b"), RepoId("org/c")
COMMIT = Commit("a" * 40)
MAIN = Revision("main")
HOLD = Hold(repo=B, revision=MAIN, selection=None, holder="h", claim="", ttl=60.0)


class Denied:
    """Refuses what the kernel would to a user without a right on a folder of mode 0700."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.on = False
        self._folder = str(folder)
        for name, itself in (("scandir", True), ("listdir", True), ("stat", False)):
            monkeypatch.setattr(os, name, self._denying(getattr(os, name), itself=itself))

    def _denying(self, real: Any, *, itself: bool) -> Any:
        def call(path: Any = ".", *args: Any, **options: Any) -> Any:
            text = "" if isinstance(path, int) else os.fspath(path)
            if self.on and (text.startswith(f"{self._folder}/") or (itself and text == self._folder)):
                raise PermissionError(errno.EACCES, "Permission denied", text)
            return real(path, *args, **options)

        return call


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path)
    for number, repo in enumerate((A, B, C)):
        made.publish(repo, COMMIT, {"f": b"%d" % number})
    yield made
    made.close()


@pytest.fixture
def denied(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> Denied:
    """Of the second repository, once it is switched on."""
    return Denied(monkeypatch, cache.paths(B).root)


def listed(cache: Cache) -> list[RepoId]:
    return [it.repo for it in cache.index.all()]


async def test_it_is_left_out_and_found_again_when_it_can_be_read(cache: Cache, denied: Denied) -> None:
    await cache.keeper.rescan()
    before = cache.index.find(B, MAIN)
    denied.on = True
    with structlog.testing.capture_logs() as lines:
        await cache.keeper.rescan()
        await cache.keeper.rescan(closely=True)
    assert listed(cache) == [A, C]
    assert [(line["log_level"], line["repo"]) for line in lines] == [("warning", B)]
    assert "Permission denied" in lines[0]["error"]
    assert [it.repo for it in read_usage(cache.index, cache.pins, cache.hub).repos] == [A, C]
    with pytest.raises(Fault, match="Permission denied") as fault:
        await cache.keeper.find(B, MAIN)
    assert fault.value.reason is Reason.DISK_FAULT
    denied.on = False
    await cache.keeper.rescan()
    assert cache.index.find(B, MAIN) == before


async def test_a_registry_starts_beside_it(cache: Cache, denied: Denied) -> None:
    denied.on = True
    async with cache.keeper.running():
        assert listed(cache) == [A, C]
        denied.on = False
        await cache.keeper.rescan()
        assert listed(cache) == [A, B, C]


async def test_its_pins_stay(cache: Cache, denied: Denied) -> None:
    pin, _, _ = await cache.keeper.pin(HOLD)
    denied.on = True
    await cache.keeper.rescan()
    assert cache.pins.all() == [pin]
    denied.on = False
    await cache.keeper.rescan()
    assert cache.index.find(B, MAIN).pin_count == 1


async def test_nothing_of_it_is_pruned(cache: Cache, denied: Denied) -> None:
    await cache.keeper.rescan()
    denied.on = True
    plan = await cache.pruner.prune(Rules(quota=0), validate_only=False)
    assert {item.repo for item in plan.items} == {A, C}
    denied.on = False
    assert cache.paths(B).snapshot(COMMIT).is_dir()


async def test_nothing_is_pruned_of_what_can_no_longer_be_read(
    cache: Cache, denied: Denied, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cache.keeper.rescan()
    denied.on = True

    async def rescan() -> None:
        """It was read before."""

    monkeypatch.setattr(cache.keeper, "rescan", rescan)
    plan = await cache.pruner.prune(Rules(quota=0), validate_only=False)
    assert {item.repo for item in plan.items} == {A, C}


async def test_the_trash_of_others_is_emptied(cache: Cache, denied: Denied) -> None:
    for repo in (B, C):
        bin_ = trash.new_bin(cache.paths(repo), cache.shelf.modes, cache.now() - 1)
        (bin_ / "blobs" / ("d" * 64)).write_bytes(b"deleted")
    denied.on = True
    await cache.keeper.rescan()
    await cache.remover.empty_trash()
    assert trash.trash_bytes(cache.paths(C)) == 0
    denied.on = False
    assert trash.trash_bytes(cache.paths(B)) == len(b"deleted")
