"""A cache read without its registry."""

import json
from pathlib import Path

import pytest
from slipway_runner.models.cached import describe, find
from slipway_runner.models.snapshots import Want
from slipway_runner.models.spec import RepoSource

COMMIT, OTHER = "abcdef1" + "0" * 33, "abcdef2" + "0" * 33
FILE = "m-Q4_K_M.gguf"


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """One repository with one commit: two files, of which one is a link to its blob."""
    root = tmp_path / "hub" / "models--owner--model"
    snapshot = root / "snapshots" / COMMIT
    (snapshot / "deep").mkdir(parents=True)
    (root / "blobs").mkdir()
    (root / "blobs" / "b1").write_bytes(bytes(1000))
    (snapshot / FILE).symlink_to("../../blobs/b1")
    (snapshot / "deep" / "config.json").write_text("{}")
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    return tmp_path / "hub"


def repo(hub: Path) -> Path:
    return hub / "models--owner--model"


def source(revision: str = "main") -> RepoSource:
    return RepoSource(repo_id="owner/model", revision=revision)


def want(*files: str) -> Want:
    return Want(source=source(), commit=COMMIT, variant="Q4_K_M", files=files, holder="uid")


@pytest.mark.parametrize("revision", ["main", COMMIT, "abcdef1"])
def test_what_is_there_is_described_at_the_commit_that_the_revision_means(hub: Path, revision: str) -> None:
    found = describe(hub, source(revision))
    assert found is not None
    assert found.registry_bypassed
    assert (found.name, found.commit) == ("owner/model", COMMIT)
    assert [(file.path, file.size_bytes) for file in found.files] == [(FILE, 1000), ("deep/config.json", 2)]


@pytest.mark.parametrize("revision", ["v1", "abcdef", OTHER, "abcdef2"])
def test_a_revision_that_the_cache_does_not_know(hub: Path, revision: str) -> None:
    assert describe(hub, source(revision)) is None


def test_a_ref_to_a_commit_that_is_gone(hub: Path) -> None:
    (repo(hub) / "refs" / "old").write_text(OTHER)
    assert describe(hub, source("old")) is None


def test_an_ambiguous_hash(hub: Path) -> None:
    (repo(hub) / "snapshots" / ("abcdef1" + "1" * 33)).mkdir()
    assert describe(hub, source("abcdef1")) is None


def test_no_cache_and_no_repository(hub: Path, tmp_path: Path) -> None:
    assert describe(tmp_path / "none", source()) is None
    assert describe(hub, RepoSource(repo_id="owner/other")) is None


def test_the_configuration_tells_what_it_is(hub: Path) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "auto_map": {"AutoModel": "m.M"}}
    (repo(hub) / "snapshots" / COMMIT / "config.json").write_text(json.dumps(config))
    found = describe(hub, source())
    assert found is not None
    assert (found.architecture, found.remote_code) == ("LlamaForCausalLM", True)


def test_all_files_that_are_wanted_are_found(hub: Path) -> None:
    found = find(hub, want(FILE))
    assert found is not None
    assert found.registry_bypassed
    assert found.root == repo(hub) / "snapshots" / COMMIT


@pytest.mark.parametrize("size", [999, 1001])
def test_a_file_of_another_size_than_the_commit_has_is_not_there(hub: Path, size: int) -> None:
    tree = {"format_version": 1, "files": {FILE: {"size": 134, "lfs_size": size}}}
    (repo(hub) / "trees").mkdir()
    (repo(hub) / "trees" / f"{COMMIT}.json").write_text(json.dumps(tree))
    assert find(hub, want(FILE)) is None
    described = describe(hub, source())
    assert described is not None
    assert [file.path for file in described.files] == ["deep/config.json"]


def test_a_listing_that_agrees_or_cannot_be_read_keeps_the_file(hub: Path) -> None:
    (repo(hub) / "trees").mkdir()
    listing = repo(hub) / "trees" / f"{COMMIT}.json"
    listing.write_text(json.dumps({"format_version": 1, "files": {FILE: {"size": 134, "lfs_size": 1000}}}))
    assert find(hub, want(FILE)) is not None
    listing.write_text("not a listing")
    assert find(hub, want(FILE)) is not None


@pytest.mark.parametrize("files", [(), (FILE, "other.gguf")])
def test_what_is_not_whole_is_not_found(hub: Path, files: tuple[str, ...]) -> None:
    assert find(hub, want(*files)) is None


def test_a_link_to_a_blob_that_is_gone_is_no_file(hub: Path) -> None:
    (repo(hub) / "blobs" / "b1").unlink()
    assert find(hub, want(FILE)) is None
