from dataclasses import replace

import pytest
from slipway_registry.cache.names import blob_of, check_tree
from slipway_service.fault import Fault, Reason
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import FilePath

GOOD = RepoFile(path=FilePath("a/b.json"), size_bytes=1, blob_id="0" * 40)


def with_path(path: str) -> RepoFile:
    """A file whose path was never checked."""
    return replace(GOOD, path=str.__new__(FilePath, path))


@pytest.mark.parametrize(
    "etag", ["", "0" * 39, "g" * 40, "../" + "0" * 37, "0" * 41, "A" * 40, "0" * 40 + "\n", '"' + "0" * 40]
)
def test_a_hash_is_40_or_64_hex_digits(etag: str) -> None:
    with pytest.raises(Fault) as caught:
        blob_of(replace(GOOD, blob_id=etag))
    assert caught.value.reason is Reason.HUB_ANSWER_UNSAFE


@pytest.mark.parametrize("etag", ["0" * 40, "a" * 64])
def test_good_hashes(etag: str) -> None:
    assert blob_of(replace(GOOD, blob_id=etag)) == etag


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/.", "a\\b", "a\0b", "a/", "x" * 256, "a/" * 1100 + "a"]
)
def test_hostile_paths_are_refused(path: str) -> None:
    with pytest.raises(Fault) as caught:
        check_tree([GOOD, with_path(path)])
    assert caught.value.reason is Reason.HUB_ANSWER_UNSAFE


@pytest.mark.parametrize(
    "bad",
    [
        replace(GOOD, size_bytes=-1),
        replace(GOOD, xet_hash="x"),
        replace(GOOD, blob_id="x"),
        replace(GOOD, path=FilePath("a")),
        replace(GOOD, path=FilePath("a/b.json/c")),
    ],
    ids=["size", "xet hash", "blob", "file that is a folder", "folder that is a file"],
)
def test_other_trees_that_cannot_be(bad: RepoFile) -> None:
    with pytest.raises(Fault):
        check_tree([GOOD, bad])


def test_a_good_tree() -> None:
    check_tree(
        [GOOD, replace(GOOD, path=FilePath("a/c")), replace(GOOD, path=FilePath("b")), replace(GOOD, size_bytes=0)]
    )
