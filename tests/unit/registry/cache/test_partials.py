"""What partial files weigh, also while downloads take them away."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slipway_registry.cache.partials import leftovers, partial_bytes
from slipway_registry.cache.scan import read_repo
from slipway_registry.cache.staged import LINK, SNAPSHOT, clear_staged, staging_path
from slipway_registry.cache.usage import read_usage

from tests.unit.registry.cache.caches import Cache

BLOCK = 1 << 16


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path)
    yield made
    made.close()


def test_a_partial_that_goes_while_it_is_weighed_weighs_nothing(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when its download ends."""
    cache.publish("org/m", "a" * 40, {"f": b"x"})
    paths = cache.paths("org/m")
    for name in ("1" * 64, "2" * 64):
        (paths.ingest / name).mkdir()
        (paths.ingest / name / "data").write_bytes(bytes(BLOCK))
    scandir = os.scandir

    def late(path: Any) -> Any:
        if str(path).endswith("1" * 64):
            os.unlink(os.path.join(path, "data"))
            os.rmdir(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", late)
    assert partial_bytes(paths) == BLOCK
    assert [it.size for it in leftovers(paths, read_repo(paths), wanted=())] == [BLOCK]


def test_a_content_that_a_killed_process_left_a_second_name_counts_once(cache: Cache) -> None:
    cache.publish("org/m", "a" * 40, {"f": bytes(BLOCK)})
    paths = cache.paths("org/m")
    (blob,) = paths.blobs.iterdir()
    link = staging_path(paths, LINK)
    link.hardlink_to(blob)
    cache.index.refresh()
    usage = read_usage(cache.index, cache.pins, cache.hub)
    assert (usage.snapshots, usage.partials) == (BLOCK, 0)
    assert [it.size for it in leftovers(paths, read_repo(paths), wanted=())] == [0]
    blob.unlink()
    assert partial_bytes(paths) == BLOCK


def test_what_a_killed_process_had_no_time_to_name_is_cleared(cache: Cache) -> None:
    cache.publish("org/m", "a" * 40, {"f": b"x"})
    paths = cache.paths("org/m")
    (blob,) = paths.blobs.iterdir()
    staging_path(paths, LINK).hardlink_to(blob)
    farm = staging_path(paths, SNAPSHOT)
    (farm / "sub").mkdir(parents=True)
    (farm / "sub" / "f").symlink_to(f"../../../blobs/{blob.name}")
    (paths.ingest / ("1" * 64)).mkdir()
    (cache.hub / "models--org--none").mkdir()
    clear_staged(cache.hub)
    assert [path.name for path in paths.ingest.iterdir()] == ["1" * 64]
    assert blob.read_bytes() == b"x"
