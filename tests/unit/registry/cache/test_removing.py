"""Deleting below holders, and beside those who come at that very moment."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from huggingface_hub import scan_cache_dir
from slipway_registry.cache.hold import Hold
from slipway_registry.cache.remover import Remover
from slipway_registry.cache.usage import read_usage
from slipway_service.fault import Fault, Reason
from slipway_service.weights.names import Commit, RepoId, Revision
from slipway_service.weights.selection import PatternSelection

from tests.unit.registry.cache.caches import Cache

pytestmark = pytest.mark.anyio

REPO, COMMIT = RepoId("org/m"), Commit("a" * 40)
PROJECTOR = "mmproj-model-f16.gguf"
FILES = {"model-Q4_K_M.gguf": b"4" * 100, "model-Q8_0.gguf": b"8" * 200}


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path)
    made.publish(REPO, COMMIT, FILES)
    yield made
    made.close()


def hold(path: str) -> Hold:
    only = PatternSelection(include=(path,))
    return Hold(repo=REPO, revision=Revision(COMMIT), selection=only, holder="h", claim="c", ttl=60.0)


async def test_a_pin_that_is_moved_to_what_is_being_deleted_keeps_it(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder may renew it with other files while the deletion is under way; the last look sees that."""
    await cache.keeper.rescan()
    await cache.keeper.pin(hold("model-Q4_K_M.gguf"))
    (snapshot,) = cache.index.all()

    async def meanwhile(*_: object) -> tuple[str, ...]:
        await cache.keeper.pin(hold("model-Q8_0.gguf"))
        return ()

    with monkeypatch.context() as patch:
        patch.setattr(Remover, "_released", meanwhile)
        with pytest.raises(Fault) as refused:
            await cache.remover.delete(snapshot.name, variant="Q8_0")
    assert refused.value.reason is Reason.SNAPSHOT_PINNED
    assert (cache.paths(REPO).snapshot(COMMIT) / "model-Q8_0.gguf").read_bytes() == FILES["model-Q8_0.gguf"]
    assert (await cache.remover.delete(snapshot.name, variant="Q4_K_M")).removal.freed_bytes == 100


async def test_nobody_pins_what_is_being_deleted(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    await cache.keeper.rescan()
    (snapshot,) = cache.index.all()
    told: list[Reason] = []

    async def meanwhile(*_: object) -> tuple[str, ...]:
        for call in (cache.keeper.pin(hold("model-Q8_0.gguf")), cache.remover.delete(snapshot.name)):
            with pytest.raises(Fault) as refused:
                await call
            told.append(refused.value.reason)
        return ()

    monkeypatch.setattr(Remover, "_released", meanwhile)
    await cache.remover.delete(snapshot.name)
    assert told == [Reason.SNAPSHOT_BUSY] * 2
    assert cache.index.all() == []


async def test_the_last_variant_takes_its_snapshot_along(cache: Cache) -> None:
    await cache.keeper.rescan()
    (snapshot,) = cache.index.all()
    assert not (await cache.remover.delete(snapshot.name, variant="Q8_0")).removal.whole
    done = await cache.remover.delete(snapshot.name, variant="Q4_K_M")
    assert (done.removal.whole, done.removal.freed_bytes) == (True, 100)
    assert cache.index.all() == []
    assert not cache.paths(REPO).root.exists()


async def test_a_variant_is_named_in_any_case(tmp_path: Path) -> None:
    """As for a verification or a download; what is written exactly so comes first."""
    cache = Cache(tmp_path / "other")
    cache.publish(REPO, COMMIT, FILES | {"a/m-x-Q8_0.gguf": b"5" * 30, "A/m-x-Q8_0.gguf": b"6" * 60})
    await cache.keeper.rescan()
    (snapshot,) = cache.index.all()
    assert {it.name for it in snapshot.variants} >= {"Q4_K_M", "a/Q8_0", "A/Q8_0"}
    assert (await cache.remover.delete(snapshot.name, variant="q4_k_m")).removal.paths == ("model-Q4_K_M.gguf",)
    assert (await cache.remover.delete(snapshot.name, variant="A/Q8_0")).removal.paths == ("A/m-x-Q8_0.gguf",)
    with pytest.raises(Fault) as refused:
        await cache.remover.delete(snapshot.name, variant="Q9")
    assert (refused.value.reason, refused.value.resource) == (Reason.VARIANT_NOT_FOUND, "Q9")
    cache.close()


async def test_a_projector_goes_with_the_last_cached_variant_that_needs_it(tmp_path: Path) -> None:
    """A variant that the cache has nothing of keeps nothing."""
    cache = Cache(tmp_path / "other")
    cache.publish(REPO, COMMIT, FILES | {PROJECTOR: b"p" * 50}, ["model-Q4_K_M.gguf", PROJECTOR])
    await cache.keeper.rescan()
    (snapshot,) = cache.index.all()
    assert len(snapshot.variants) == 2
    done = await cache.remover.delete(snapshot.name, variant="Q4_K_M")
    assert (done.removal.whole, done.removal.freed_bytes) == (True, 150)
    cache.close()


async def test_a_keep_that_another_program_ends_is_told(cache: Cache) -> None:
    """`hf cache rm` asks nobody; the operator who kept the model has to learn of it."""
    await cache.keeper.rescan()
    await cache.keeper.pin(replace(hold("model-Q4_K_M.gguf"), holder="ops", ttl=None))
    scan_cache_dir(cache.hub).delete_revisions(COMMIT).execute()
    with structlog.testing.capture_logs() as lines:
        await cache.keeper.rescan()
    (line,) = [line for line in lines if line["log_level"] == "warning"]
    assert (line["holder"], line["repo"], line["commit"]) == ("ops", REPO, COMMIT)
    assert cache.pins.all() == []


class Crash(BaseException):
    """Nothing of ours may catch it."""


@pytest.mark.parametrize("symlinks", [True, False], ids=["symlinks", "real files"])
@pytest.mark.parametrize("variant", ["", "Q4_K_M"], ids=["whole", "variant"])
@pytest.mark.parametrize("step", range(16))
async def test_a_crash_at_any_step_of_a_deletion_is_made_good(
    tmp_path: Path, step: int, variant: str, symlinks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory syncs are the steps: whatever was to happen after the n-th does not."""
    cache = Cache(tmp_path / "other", symlinks=symlinks)
    pinned, shared = Commit("b" * 40), {"shared.bin": b"s" * 30}
    cache.publish(REPO, pinned, shared)
    cache.publish(REPO, COMMIT, FILES | shared)
    await cache.keeper.rescan()
    pin, _, _ = await cache.keeper.pin(replace(hold("shared.bin"), revision=Revision(pinned)))
    name = (await cache.keeper.find(REPO, Revision(COMMIT))).name
    left = step

    def crash_later(path: Path) -> None:
        nonlocal left
        if left == 0:
            raise Crash
        left -= 1

    with monkeypatch.context() as patch:
        for module in ("trash", "delete", "files"):
            patch.setattr(f"slipway_registry.cache.{module}.sync_directory", crash_later)
        with suppress(Crash):
            await cache.remover.delete(name, variant=variant)
    paths = cache.paths(REPO)
    assert all(link.exists() for link in paths.snapshots.rglob("*"))
    assert (paths.snapshot(pinned) / "shared.bin").read_bytes() == shared["shared.bin"]
    assert all(paths.snapshot(Commit(ref.read_text())).is_dir() for ref in paths.refs.rglob("*") if ref.is_file())

    cache.time.seconds += 1
    await cache.keeper.rescan()
    with suppress(Fault):  # it is gone already, or the variant of it
        await cache.remover.delete(name, variant=variant)
    await cache.remover.empty_trash()
    await cache.keeper.rescan()
    gone = set(FILES.values()) if not variant else {FILES["model-Q4_K_M.gguf"]}
    there = {blob.read_bytes() for blob in paths.blobs.iterdir()}
    assert there == {*FILES.values(), *shared.values()} - gone
    assert (paths.snapshot(pinned) / "shared.bin").read_bytes() == shared["shared.bin"]
    assert read_usage(cache.index, cache.pins, cache.hub).trash == 0
    assert cache.pins.all() == [pin]
    cache.close()
