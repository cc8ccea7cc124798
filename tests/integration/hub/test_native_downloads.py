"""huggingface_hub's downloads and cache tools, unmodified, against the emulator."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import (
    HfApi,
    get_cached_repo_tree,
    hf_hub_download,
    scan_cache_dir,
    snapshot_download,
)
from huggingface_hub.errors import LocalEntryNotFoundError

from tests.hub.content import Random, Source
from tests.hub.emulator import HubEmulator
from tests.hub.faults import Corrupt
from tests.hub.files import FileSpec
from tests.hub.models.demo import GATED, TOKEN
from tests.hub.repos import Repo
from tests.integration.hub.clients import Native

WEIGHTS = Random((12 << 20) + 5, seed=1)


@pytest.fixture
def repo(hub: HubEmulator) -> Repo:
    """Two commits with what git, LFS and folders make of files."""
    repo = hub.add_repo("org/name", {"README.md": "old", "config.json": "{}", "empty.txt": ""})
    repo.tag("v1.0")
    repo.commit({"README.md": "new", "model.safetensors": WEIGHTS, "sub/dir/b.bin": b"b" * 99, "zero.bin": b""})
    return repo


def snapshots(repo_id: str, revisions: list[str | None]) -> list[str]:
    return [Path(snapshot_download(repo_id, revision=revision)).name for revision in revisions]


def content(native: Native, repo: Repo, commit: str) -> dict[str, bool]:
    """For each file of a commit whether the cache has it with the right bytes."""
    folder = native.cache / f"models--{repo.id.replace('/', '--')}" / "snapshots" / commit
    return {
        path: (folder / path).is_file() and (folder / path).read_bytes() == file.blob.path.read_bytes()
        for path, file in repo.commits[commit].files.items()
    }


def test_snapshots_by_every_kind_of_revision(hub: HubEmulator, repo: Repo, native: Native) -> None:
    first, second = repo.commits
    proposal = repo.pull_request(1, {"pr.txt": "p"})
    revisions = [None, "v1.0", second, first[:12], "refs/pr/1", "refs/heads/main"]
    found = native.call(snapshots, repo.id, revisions)
    assert found == [second, first, second, first, proposal, second]
    for commit in (first, second, proposal):
        assert all(content(native, repo, commit).values())
    assert hub.journal.leaks() == []


def test_a_warm_snapshot_asks_next_to_nothing(hub: HubEmulator, repo: Repo, native: Native) -> None:
    (commit,) = native.call(snapshots, repo.id, [None])
    hub.journal.clear()
    native.call(snapshots, repo.id, [None, commit])
    assert [exchange.path for exchange in hub.journal.requests()] == ["/api/models/org/name/revision/main"]


def test_a_renamed_repository_is_followed(hub: HubEmulator, repo: Repo, native: Native) -> None:
    hub.catalogue.rename("org/name", "org/new-name")
    (commit,) = native.call(snapshots, "org/name", [None])
    assert commit == repo.head.id
    assert {e.status for e in hub.journal.requests(r"/org/name/")} == {307}
    assert hub.journal.requests(r"/org/new-name/resolve/")


def test_a_tag_and_a_branch_that_moved(repo: Repo, native: Native) -> None:
    first, second = repo.commits
    assert native.call(snapshots, repo.id, ["v1.0", "main"]) == [first, second]
    repo.tag("v1.0", second)
    third = repo.commit({"c.txt": "c"}, delete=["README.md"])
    assert native.call(snapshots, repo.id, ["v1.0", "main"]) == [second, third]


def offline(repo_id: str, file: str, absent: str) -> list[str]:
    try:
        hf_hub_download(repo_id, absent)
    except LocalEntryNotFoundError:
        return [Path(snapshot_download(repo_id)).name, str(Path(hf_hub_download(repo_id, file)).read_text())]
    return []


def test_offline_from_a_full_cache(hub: HubEmulator, repo: Repo, native: Native) -> None:
    native.call(snapshots, repo.id, [None])
    hub.journal.clear()
    found = native.call(offline, repo.id, "README.md", "absent.txt", HF_HUB_OFFLINE="1")
    assert found == [repo.head.id, "new"]
    assert hub.journal.requests() == []


def care(repo_id: str) -> dict[str, Any]:
    api = HfApi()
    planned = snapshot_download(repo_id, dry_run=True)
    snapshot_download(repo_id)
    report = scan_cache_dir()
    verified = api.verify_repo_checksums(repo_id)
    return {
        "planned": {item.filename: [item.file_size, item.will_download] for item in planned},
        "warnings": [str(warning) for warning in report.warnings],
        "refs": sorted(next(iter(report.repos)).refs),
        "checked": verified.checked_count,
        "mismatches": len(verified.mismatches),
        "tree": sorted(entry.path for entry in get_cached_repo_tree(repo_id) or []),
    }


def test_dry_run_scan_and_verify(repo: Repo, native: Native) -> None:
    found = native.call(care, repo.id)
    assert found == {
        "planned": {path: [file.size, True] for path, file in repo.head.files.items()},
        "warnings": [],
        "refs": ["main"],
        "checked": len(repo.head.files),
        "mismatches": 0,
        "tree": sorted(repo.head.files),
    }


def mismatches(repo_id: str) -> list[str]:
    return [mismatch["path"] for mismatch in HfApi().verify_repo_checksums(repo_id).mismatches]


def test_verify_sees_what_a_corrupt_link_brought(hub: HubEmulator, repo: Repo, native: Native) -> None:
    hub.faults.add(Corrupt(offset=7_000_000), origin="cdn")
    native.call(snapshots, repo.id, [None])
    assert native.call(mismatches, repo.id) == ["model.safetensors"]


def gated_download(repo_id: str, token: str) -> int:
    folder = Path(snapshot_download(repo_id, token=token))
    return sum(1 for path in folder.rglob("*") if path.is_file())


def test_a_gated_download_shows_the_token_to_the_hub_alone(demo_hub: HubEmulator, demo_native: Native) -> None:
    assert demo_native.call(gated_download, GATED, TOKEN) == len(demo_hub.catalogue.repos[GATED].head.files)
    data = demo_hub.journal.requests(origin="cdn")
    assert data
    assert all("authorization" not in exchange.headers for exchange in data)
    assert any("authorization" in exchange.headers for exchange in demo_hub.journal.requests(origin="hub"))
    assert demo_hub.journal.leaks() == []


def test_xet_files_come_from_the_cas(hub: HubEmulator, native: Native) -> None:
    weights, large = Random(5 << 20, seed=2), Random((70 << 20) + 3, seed=3)
    files: dict[str, Source] = {
        "config.json": "{}",
        "a.safetensors": weights,
        "b.safetensors": large,
        "c.bin": b"small",
    }
    first = hub.add_repo("org/xet", files, xet=True)
    mixed: dict[str, Source | FileSpec] = {
        "same.safetensors": weights,
        "http.bin": FileSpec(source=b"x" * 1000, xet=False),
    }
    second = hub.add_repo("org/mixed", mixed, xet=True)
    native.call(snapshots, first.id, [None])
    assert all(content(native, first, first.head.id).values())
    assert hub.journal.requests(origin="cdn") == []
    assert len({exchange.path for exchange in hub.journal.requests("^/xorbs/")}) == 4  # 70 MiB need two
    hub.journal.clear()
    native.call(snapshots, second.id, [None])
    assert all(content(native, second, second.head.id).values())
    assert hub.journal.requests("^/xorbs/") == []  # the shared store has that content already
    assert len(hub.journal.requests(origin="cdn")) == 1
    assert hub.journal.leaks() == []


def test_equal_chunks_are_stored_once(hub: HubEmulator, native: Native) -> None:
    base, tail = hub.catalogue.blobs.put(Random(1 << 20, seed=4)).path.read_bytes(), b"tail" * 9
    hub.add_repo("org/base", {"w.bin": base}, xet=True)
    tuned = hub.add_repo("org/tuned", {"w.bin": base[: 512 << 10] + tail}, xet=True)
    native.call(snapshots, tuned.id, [None])
    assert all(content(native, tuned, tuned.head.id).values())
    sizes = [len(xorb.chunks) for xorb in hub.catalogue.xet.xorbs.values()]
    assert sizes == [8, 1]
    fetched = hub.journal.requests("^/xorbs/")
    assert len({exchange.path for exchange in fetched}) == 2
    assert sum(exchange.sent for exchange in fetched) < 513 << 10
