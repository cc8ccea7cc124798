"""What is deleted and not gone yet."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir
from slipway_registry.cache import trash
from slipway_registry.cache.delete import plan_removal, remove
from slipway_registry.cache.scan import read_repo
from slipway_service.weights.names import Commit

from tests.unit.registry.cache.caches import Cache

A, B = "a" * 40, "b" * 40
FILES = {"config.json": b"{}", "sub/model.gguf": b"GGUF"}


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path)
    yield made
    made.close()


def delete(cache: Cache, commit: str, now: float = 1000.0) -> int:
    paths = cache.paths("org/m")
    removal = plan_removal(read_repo(paths), Commit(commit), None, wanted=())
    return remove(paths, removal, cache.shelf.modes, now, for_good=False).freed_bytes


def test_bins_are_emptied_when_their_grace_is_over(cache: Cache) -> None:
    cache.publish("org/m", A, FILES)
    paths = cache.paths("org/m")
    assert delete(cache, A) == trash.trash_bytes(paths) == 6
    assert trash.empty(paths, 999.0)
    assert trash.trash_bytes(paths) == 6
    assert not trash.empty(paths, 1000.0)
    assert trash.trash_bytes(paths) == 0


def test_what_another_program_links_meanwhile_is_given_back(cache: Cache) -> None:
    cache.publish("org/m", A, FILES)
    paths = cache.paths("org/m")
    blob = next(path for path in paths.blobs.iterdir() if path.read_bytes() == b"GGUF")
    delete(cache, A)
    link = paths.snapshots / B / "model.gguf"
    link.parent.mkdir()
    link.symlink_to(Path("../../blobs") / blob.name)
    trash.empty(paths, 1000.0)
    assert link.read_bytes() == b"GGUF"


def test_listings_that_hf_left_do_not_keep_an_empty_repository(cache: Cache) -> None:
    for commit in (A, B):
        cache.publish("org/m", commit, FILES)
    scan_cache_dir(cache.hub).delete_revisions(A).execute()
    paths = cache.paths("org/m")
    delete(cache, B)
    trash.empty(paths, 1000.0)
    trash.remove_if_empty(paths)
    assert not paths.root.exists()
    assert not scan_cache_dir(cache.hub).warnings


def test_a_partial_keeps_its_repository_whole(cache: Cache) -> None:
    cache.publish("org/m", A, FILES)
    paths = cache.paths("org/m")
    (paths.ingest / ("f" * 64)).mkdir()
    (paths.ingest / ("f" * 64) / "data").write_bytes(b"some")
    delete(cache, A)
    trash.empty(paths, 1000.0)
    trash.remove_if_empty(paths)
    assert paths.snapshots.is_dir()
    assert not scan_cache_dir(cache.hub).warnings
