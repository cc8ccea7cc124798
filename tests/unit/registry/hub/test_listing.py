"""Listings are checked before anything sees them."""

from typing import Any

import pytest
from slipway_registry.hub.listing import checked, files_of
from slipway_service.fault import Fault, Reason
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import FilePath

SHA1, SHA256, XET = "1" * 40, "2" * 64, "3" * 64
PLAIN = {"type": "file", "path": "config.json", "size": 5, "oid": SHA1}
LFS = {**PLAIN, "path": "m.gguf", "lfs": {"oid": SHA256, "size": 5, "pointerSize": 130}, "xetHash": XET}


def test_files_of_a_page() -> None:
    folder = {"type": "directory", "path": "onnx", "oid": SHA1}
    assert files_of([PLAIN, folder, LFS]) == [
        RepoFile(path=FilePath("config.json"), size_bytes=5, blob_id=SHA1, git_oid=SHA1),
        RepoFile(path=FilePath("m.gguf"), size_bytes=5, blob_id=SHA256, lfs=True, xet_hash=XET, git_oid=SHA1),
    ]


@pytest.mark.parametrize(
    "entry",
    [
        {**PLAIN, "path": "../../etc/passwd"},
        {**PLAIN, "path": "/etc/passwd"},
        {**PLAIN, "path": "a\\b"},
        {**PLAIN, "path": "a\x00"},
        {**PLAIN, "path": "\ud800"},
        {**PLAIN, "path": None},
        {**PLAIN, "oid": "../" + "1" * 37},
        {**PLAIN, "oid": None},
        {**PLAIN, "size": -1},
        {**PLAIN, "size": 1.5},
        {**PLAIN, "size": True},
        {**PLAIN, "size": 1 << 63},
        {**LFS, "lfs": {"oid": "A" * 64}},
        {**LFS, "lfs": {"oid": "sha256:" + SHA256}},
        {**LFS, "lfs": 3},
        {**LFS, "xetHash": "x"},
        {"type": "file"},
        {},
        None,
        "m.gguf",
        7,
    ],
)
def test_what_must_not_reach_the_disk(entry: Any) -> None:
    with pytest.raises(Fault) as caught:
        files_of([PLAIN, entry])
    assert caught.value.reason is Reason.HUB_ANSWER_UNSAFE


@pytest.mark.parametrize("paths", [["a", "a"], ["a", "a/b"], ["a/b", "a/b/c/d", "z"]])
def test_paths_that_exclude_each_other(paths: list[str]) -> None:
    with pytest.raises(Fault) as caught:
        checked(files_of([{**PLAIN, "path": path} for path in paths]))
    assert caught.value.reason is Reason.HUB_ANSWER_UNSAFE


def test_files_are_in_order() -> None:
    ordered = checked(files_of([{**PLAIN, "path": path} for path in ("b", "a/x", "a.x")]))
    assert [file.path for file in ordered] == ["a.x", "a/x", "b"]
