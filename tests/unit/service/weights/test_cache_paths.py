"""The cache's layout and place, compared with huggingface_hub's own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub.file_download import repo_folder_name
from slipway_service.weights.cache_paths import (
    RepoPaths,
    cache_roots,
    link_target,
    repo_folder,
    repo_of_folder,
    snapshot_path,
)
from slipway_service.weights.names import BlobId, Commit, FilePath, RepoId, Revision

COMMIT = Commit("c" * 40)
BLOB = BlobId("b" * 64)
REPO = RepoId("org/name.v1")

ENVIRONMENTS: list[dict[str, str]] = [
    {},
    {"HF_HOME": "/data/hf"},
    {"HF_HOME": "~/hf"},
    {"HF_HOME": "$BASE/hf", "BASE": "/b"},
    {"HF_HOME": "${BASE}x/$UNSET/hf", "BASE": "/b"},
    {"XDG_CACHE_HOME": "/xdg"},
    {"XDG_CACHE_HOME": "/xdg", "HF_HOME": "/data/hf"},
    {"HF_HUB_CACHE": "/hub", "HF_HOME": "/data/hf"},
    {"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/data/hf"},
    {"HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": "$BASE/new", "BASE": "/b"},
    {"TRANSFORMERS_CACHE": "/tf"},
]

ASK = """
import importlib, json, os, sys
from huggingface_hub import constants
for environment in json.load(sys.stdin):
    os.environ.clear()
    os.environ.update(environment)
    importlib.reload(constants)
    print(constants.HF_HOME, constants.HF_HUB_CACHE, sep="\\t")
"""


def test_the_cache_is_where_huggingface_hub_has_it() -> None:
    environments = [{"HOME": "/home/u", **environment} for environment in ENVIRONMENTS]
    asked = subprocess.run(
        [sys.executable, "-c", ASK], input=json.dumps(environments), capture_output=True, text=True, check=True
    )
    theirs = [tuple(line.split("\t")) for line in asked.stdout.splitlines()]
    ours = [(str(roots.home), str(roots.hub)) for roots in map(cache_roots, environments)]
    assert ours == theirs


def test_an_empty_variable_is_no_variable() -> None:
    roots = cache_roots({"HOME": "/home/u", "HF_HOME": "", "HF_HUB_CACHE": "", "XDG_CACHE_HOME": ""})
    assert roots.hub == Path("/home/u/.cache/huggingface/hub")


def test_transformers_cache_is_ignored_with_advice() -> None:
    roots = cache_roots({"HOME": "/home/u", "TRANSFORMERS_CACHE": "/tf"})
    assert roots.hub == Path("/home/u/.cache/huggingface/hub")
    (warning,) = roots.warnings
    assert "TRANSFORMERS_CACHE=/tf is ignored" in warning
    assert "HF_HUB_CACHE=/tf" in warning
    assert not cache_roots({"HOME": "/home/u", "HF_HUB_CACHE": "/tf"}).warnings


@pytest.mark.parametrize("repo", ["gpt2", "org/name", "a-b/c_d.e"])
def test_folders_are_named_as_huggingface_hub_names_them(repo: str) -> None:
    folder = repo_folder(RepoId(repo))
    assert folder == repo_folder_name(repo_id=repo, repo_type="model")
    assert repo_of_folder(folder) == repo


@pytest.mark.parametrize(
    "folder", ["datasets--a--b", "models--", "models--a--b--c", ".locks", "blobs", "models--..--x"]
)
def test_other_folders_are_no_models(folder: str) -> None:
    assert repo_of_folder(folder) is None


def test_the_layout() -> None:
    paths = RepoPaths(Path("/hub"), REPO)
    root = Path("/hub/models--org--name.v1")
    assert paths.blob(BLOB) == root / "blobs" / BLOB
    assert paths.ref(Revision("refs/pr/3")) == root / "refs/refs/pr/3"
    assert paths.keep_ref(COMMIT) == root / "refs/slipway" / COMMIT
    assert paths.tree(COMMIT) == root / f"trees/{COMMIT}.json"
    assert paths.no_exist(COMMIT) == root / ".no_exist" / COMMIT
    assert paths.ingest == root / ".ingest"
    assert paths.lock(BLOB) == Path(f"/hub/.locks/models--org--name.v1/{BLOB}.lock")
    assert Path("/hub") / snapshot_path(REPO, COMMIT) == paths.snapshot(COMMIT)


@pytest.mark.parametrize("path", ["config.json", "onnx/model.onnx", "a/b/c/d"])
def test_links_lead_to_blobs(path: str, tmp_path: Path) -> None:
    paths = RepoPaths(tmp_path, REPO)
    link = paths.file(COMMIT, FilePath(path))
    link.parent.mkdir(parents=True)
    paths.blobs.mkdir(parents=True)
    paths.blob(BLOB).write_text("content")
    link.symlink_to(link_target(FilePath(path), BLOB))
    assert link.read_text() == "content"
