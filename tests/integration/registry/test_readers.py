"""Readers of every kind agree about a cache that the registry has filled."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest
from slipway_registry.jobs.records import State

from tests.hub.content import Random, Source
from tests.hub.emulator import HubEmulator
from tests.hub.files import FileSpec
from tests.hub.repos import Repo
from tests.integration.hub.clients import Native
from tests.integration.registry import native_reads
from tests.integration.registry.engines import engine_in

FILES: Mapping[str, Source | FileSpec] = {
    "config.json": b"{}",
    "sub/deep.txt": b"deep",
    "model.safetensors": Random(3 << 20),
    "model.onnx": Random(1 << 20, 2),
}
NOBODY = 65534
# The last release that resumed, and the first that did not: what is still installed out there.
OLDER = ("0.36.*", "1.17.*")


@pytest.fixture
def native(hub: HubEmulator, tmp_path: Path) -> Native:
    """huggingface_hub on the registry's cache."""
    return Native(hub.endpoint, tmp_path)


@pytest.fixture
def repo(hub: HubEmulator) -> Repo:
    return hub.add_repo("org/m", FILES, xet=True)


def fill(
    hub: HubEmulator,
    repo: Repo,
    directory: Path,
    *,
    paths: Sequence[str] | None = None,
    revision: str = "main",
    symlinks: bool = True,
) -> None:
    """Have a registry download (some of) a repository."""

    async def run() -> None:
        async with engine_in(directory, hub.endpoint, symlinks=symlinks) as bench:
            assert (await bench.fetch(repo, paths=paths, revision=revision)).state is State.SUCCEEDED

    asyncio.run(run())


@pytest.mark.parametrize("symlinks", [True, False])
def test_a_whole_snapshot_is_whole_offline(
    hub: HubEmulator, repo: Repo, tmp_path: Path, native: Native, symlinks: bool
) -> None:
    fill(hub, repo, tmp_path, symlinks=symlinks)
    for revision in ("main", repo.head.id):
        assert native.call(native_reads.offline, "org/m", revision, None, HF_HUB_OFFLINE="1") == sorted(FILES)


def test_a_part_of_a_snapshot_is_not_taken_for_all_of_it(
    hub: HubEmulator, repo: Repo, tmp_path: Path, native: Native
) -> None:
    fill(hub, repo, tmp_path, paths=["config.json", "sub/deep.txt"])
    assert native.call(native_reads.offline, "org/m", "main", None) == "IncompleteSnapshotError"
    assert native.call(native_reads.offline, "org/m", "main", ["*.json", "sub/*"]) == ["config.json", "sub/deep.txt"]


def test_a_scan_finds_nothing_strange(hub: HubEmulator, repo: Repo, tmp_path: Path, native: Native) -> None:
    fill(hub, repo, tmp_path)
    found = native.call(native_reads.scan)
    assert found == {"refs": {"org/m": ["main", f"slipway/{repo.head.id}"]}, "warnings": []}
    assert "org/m" in json.dumps(json.loads(native.hf("cache", "ls", "--json").stdout))


@pytest.mark.parametrize("symlinks", [True, False])
def test_hf_verifies_it(hub: HubEmulator, repo: Repo, tmp_path: Path, native: Native, symlinks: bool) -> None:
    fill(hub, repo, tmp_path, symlinks=symlinks)
    verified = native.hf("cache", "verify", "org/m", "--fail-on-missing-files", "--fail-on-extra-files")
    assert verified.returncode == 0, verified.stderr
    blob = tmp_path / "hub" / "models--org--m" / "blobs" / repo.head.files["model.safetensors"].etag
    with blob.open("r+b") as file:
        file.write(b"\xff\xff")
    assert native.hf("cache", "verify", "org/m").returncode != 0


@pytest.mark.parametrize("symlinks", [True, False])
def test_prune_takes_nothing_of_it(
    hub: HubEmulator, repo: Repo, tmp_path: Path, native: Native, symlinks: bool
) -> None:
    """Not even a snapshot that only its commit names, which prune takes from others."""
    fill(hub, repo, tmp_path, revision=repo.head.id, symlinks=symlinks)
    pruned = native.hf("cache", "prune", "--yes")
    assert pruned.returncode == 0, pruned.stderr
    assert native.call(native_reads.offline, "org/m", repo.head.id, None) == sorted(FILES)


@pytest.mark.parametrize("symlinks", [True, False])
def test_what_rm_takes_is_all_of_it(
    hub: HubEmulator, repo: Repo, tmp_path: Path, native: Native, symlinks: bool
) -> None:
    fill(hub, repo, tmp_path, symlinks=symlinks)
    removed = native.hf("cache", "rm", repo.head.id, "--yes")
    assert removed.returncode == 0, removed.stderr
    assert native.call(native_reads.offline, "org/m", "main", None) == "LocalEntryNotFoundError"
    assert native.call(native_reads.scan)["warnings"] == []
    fill(hub, repo, tmp_path, symlinks=symlinks)
    assert native.call(native_reads.offline, "org/m", "main", None) == sorted(FILES)


def test_a_native_download_adds_what_is_missing(hub: HubEmulator, repo: Repo, tmp_path: Path, native: Native) -> None:
    fill(hub, repo, tmp_path, paths=["config.json", "model.safetensors"])
    hub.journal.clear()
    done = native.hf("download", "org/m", HF_HUB_DISABLE_XET="1")
    assert done.returncode == 0, done.stderr
    missing = repo.head.files["model.onnx"].etag
    assert {exchange.path for exchange in hub.journal.requests(origin="cdn")} == {f"/cdn/{missing}"}
    hub.journal.clear()
    fill(hub, repo, tmp_path)  # hashes what hf brought
    assert hub.journal.requests() == []


_READ = """
import os, sys
from huggingface_hub import snapshot_download
if user := os.environ.get("READ_AS"):
    os.setgroups([])
    os.setgid(int(user))
    os.setuid(int(user))
try:
    print(snapshot_download("org/m", local_files_only=True))
except Exception as error:
    sys.exit(type(error).__name__)
"""


def read(environment: Mapping[str, str], python: str | Path = sys.executable) -> str:
    """What a reader in a process of its own says: where the snapshot is, or why there is none."""
    done = subprocess.run([python, "-c", _READ], env=dict(environment), capture_output=True, text=True)
    return (done.stdout or done.stderr).strip()


@pytest.mark.full
def test_another_user_sees_the_same(hub: HubEmulator, repo: Repo, open_path: Path) -> None:
    """A partial snapshot is refused to other users too: its listing must be readable for them. Needs root."""
    environment = Native(hub.endpoint, open_path).environment(READ_AS=str(NOBODY), HF_HUB_OFFLINE="1")
    fill(hub, repo, open_path, paths=["config.json"])
    assert read(environment) == "IncompleteSnapshotError"
    fill(hub, repo, open_path)
    assert read(environment) == str(open_path / "hub" / "models--org--m" / "snapshots" / repo.head.id)


@pytest.mark.full
def test_a_read_only_mount_serves(hub: HubEmulator, repo: Repo, tmp_path: Path, native: Native) -> None:
    """Needs root."""
    fill(hub, repo, tmp_path)
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    mount = partial(subprocess.run, check=True)
    mount(["mount", "--bind", tmp_path / "hub", mounted])
    try:
        mount(["mount", "-o", "remount,ro,bind", mounted])
        found = native.call(native_reads.offline, "org/m", "main", None, HF_HUB_CACHE=str(mounted), HF_HUB_OFFLINE="1")
        assert found == sorted(FILES)
    finally:
        mount(["umount", mounted])


@pytest.fixture(params=OLDER)
def older(request: pytest.FixtureRequest) -> Path:
    """The interpreter of an environment with an older huggingface_hub, made once per machine."""
    version: str = request.param
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    venv = cache / "slipway" / "readers" / f"huggingface_hub-{version.removesuffix('.*')}"
    if not (venv / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        install = [str(venv / "bin" / "pip"), "install", "-q", f"huggingface_hub=={version}"]
        subprocess.run(install, check=True, capture_output=True)
        (venv / "ready").touch()
    return venv / "bin" / "python"


@pytest.mark.full
@pytest.mark.timeout(300)
def test_older_releases_read_it(hub: HubEmulator, repo: Repo, tmp_path: Path, native: Native, older: Path) -> None:
    fill(hub, repo, tmp_path)
    environment = native.environment(HF_HUB_OFFLINE="1")
    assert read(environment, older) == str(tmp_path / "hub" / "models--org--m" / "snapshots" / repo.head.id)
    scan = "from huggingface_hub import scan_cache_dir; found = scan_cache_dir(); print(found.warnings, found.repos)"
    done = subprocess.run([str(older), "-c", scan], env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("[]"), done.stdout + done.stderr
    assert "org/m" in done.stdout
