"""What any publisher of snapshots must do, in each of its modes."""

import errno
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir
from slipway_registry.cache import files as files_module
from slipway_registry.cache.blobs import BlobShelf
from slipway_registry.cache.exclusion import RepoLocks
from slipway_registry.cache.layout import Modes
from slipway_registry.cache.publish import Publisher
from slipway_service.fault import Fault
from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import Commit, FilePath, RepoId, Revision

REPO = RepoId("org/model")
COMMIT = Commit("c" * 40)
MAIN = Revision("main")
CONTENT = {"config.json": b"{}", "sub/dir/deep.txt": b"deep", "model.gguf": b"GGUF", "copy.gguf": b"GGUF"}
BLOBS = {b"{}": "1" * 40, b"deep": "2" * 40, b"GGUF": "3" * 64}
LISTING = [
    RepoFile(path=FilePath(path), size_bytes=len(data), blob_id=BLOBS[data], lfs=len(BLOBS[data]) == 64)
    for path, data in CONTENT.items()
]


@pytest.fixture
def shelf(tmp_path: Path) -> BlobShelf:
    (tmp_path / "hub").mkdir()
    made = BlobShelf(tmp_path / "hub", Modes(file=0o644, directory=0o755))
    paths = made.prepare(REPO)
    for data, blob in BLOBS.items():
        (paths.blobs / blob).write_bytes(data)
    return made


@pytest.fixture(params=[True, False], ids=["symlinks", "real files"])
def publisher(shelf: BlobShelf, request: pytest.FixtureRequest) -> Publisher:
    return Publisher(shelf, RepoLocks(), symlinks=request.param)


@pytest.fixture
def paths(shelf: BlobShelf) -> RepoPaths:
    return RepoPaths(shelf.hub, REPO)


def contents(snapshot: Path) -> dict[str, bytes]:
    return {str(path.relative_to(snapshot)): path.read_bytes() for path in snapshot.rglob("*") if path.is_file()}


def test_a_selection_becomes_visible(publisher: Publisher, paths: RepoPaths) -> None:
    publisher.publish(REPO, COMMIT, LISTING, ["config.json", "sub/dir/deep.txt"], MAIN)
    assert contents(paths.snapshot(COMMIT)) == {"config.json": b"{}", "sub/dir/deep.txt": b"deep"}
    assert (paths.refs / "main").read_text() == COMMIT
    assert paths.keep_ref(COMMIT).read_text() == COMMIT
    assert set(json.loads(paths.tree(COMMIT).read_text())["files"]) == set(CONTENT)
    assert list(paths.ingest.iterdir()) == []


def test_a_second_selection_is_added(publisher: Publisher, paths: RepoPaths) -> None:
    publisher.publish(REPO, COMMIT, LISTING, ["config.json"], MAIN)
    publisher.publish(REPO, COMMIT, LISTING, ["sub/dir/deep.txt", "model.gguf"], MAIN)
    assert set(contents(paths.snapshot(COMMIT))) == {"config.json", "sub/dir/deep.txt", "model.gguf"}


def test_publishing_again_changes_nothing(publisher: Publisher, paths: RepoPaths) -> None:
    publisher.publish(REPO, COMMIT, LISTING, list(CONTENT), MAIN)

    def stamps() -> dict[Path, int]:
        return {path: path.lstat().st_ctime_ns for path in paths.root.rglob("*") if path.is_file()}

    before = stamps()
    publisher.publish(REPO, COMMIT, LISTING, list(CONTENT), MAIN)
    assert stamps() == before


def test_cache_scans_like_it(publisher: Publisher, paths: RepoPaths) -> None:
    publisher.publish(REPO, COMMIT, LISTING, list(CONTENT), MAIN)
    found = scan_cache_dir(paths.hub)
    assert found.warnings == []
    (repo,) = found.repos
    (revision,) = repo.revisions
    assert (revision.commit_hash, revision.refs) == (str(COMMIT), frozenset({"main", f"slipway/{COMMIT}"}))


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/3", "feature/x"])
def test_names_become_refs(publisher: Publisher, paths: RepoPaths, revision: str) -> None:
    publisher.publish(REPO, COMMIT, LISTING, ["config.json"], Revision(revision))
    assert (paths.refs / revision).read_text() == COMMIT


@pytest.mark.parametrize("revision", [COMMIT, COMMIT[:7], COMMIT[:12].upper()])
def test_hashes_do_not(publisher: Publisher, paths: RepoPaths, revision: str) -> None:
    publisher.publish(REPO, COMMIT, LISTING, ["config.json"], Revision(revision))
    assert [path.name for path in paths.refs.rglob("*") if path.is_file()] == [COMMIT]


@pytest.mark.parametrize(("before", "now"), [("dev", "dev/x"), ("dev/x", "dev")])
def test_a_ref_that_is_in_the_way_of_another_stays(
    publisher: Publisher, paths: RepoPaths, before: str, now: str
) -> None:
    other = Commit("d" * 40)
    publisher.publish(REPO, other, LISTING, ["config.json"], Revision(before))
    publisher.publish(REPO, COMMIT, LISTING, list(CONTENT), Revision(now))
    assert contents(paths.snapshot(COMMIT)) == CONTENT
    assert (paths.refs / before).read_text() == other
    assert scan_cache_dir(paths.hub).warnings == []
    assert list(paths.ingest.iterdir()) == []


def test_a_missing_blob_publishes_nothing_that_is_seen(publisher: Publisher, paths: RepoPaths) -> None:
    (paths.blobs / BLOBS[b"deep"]).unlink()
    with pytest.raises(FileNotFoundError):
        publisher.publish(REPO, COMMIT, LISTING, list(CONTENT), MAIN)
    assert not paths.snapshot(COMMIT).exists()
    assert not paths.refs.exists()
    assert list(paths.ingest.iterdir()) == []


def test_a_hostile_tree_publishes_nothing(publisher: Publisher, paths: RepoPaths) -> None:
    hostile = replace(LISTING[0], path=str.__new__(FilePath, "../../evil"))
    with pytest.raises(Fault):
        publisher.publish(REPO, COMMIT, [*LISTING, hostile], ["config.json"], MAIN)
    assert not paths.trees.exists()


@pytest.mark.parametrize("step", range(24))
def test_a_crash_at_any_step_leaves_nothing_half(
    publisher: Publisher, paths: RepoPaths, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory syncs are the steps: whatever was to happen after the n-th does not."""
    left = step
    sync = files_module.sync_directory

    class Crash(BaseException):
        """Nothing of ours may catch it."""

    def crash_later(path: Path) -> None:
        nonlocal left
        if left == 0:
            raise Crash
        left -= 1
        sync(path)

    monkeypatch.setattr("slipway_registry.cache.publish.sync_directory", crash_later)
    monkeypatch.setattr("slipway_registry.cache.files.sync_directory", crash_later)
    crashed = False
    try:
        publisher.publish(REPO, COMMIT, LISTING, list(CONTENT), MAIN)
    except Crash:
        crashed = True
    snapshot = paths.snapshot(COMMIT)
    if snapshot.exists():
        assert contents(snapshot) == CONTENT
    for ref in [path for path in paths.refs.rglob("*") if path.is_file()] if paths.refs.exists() else []:
        assert snapshot.is_dir(), f"{ref} dangles"
    assert crashed or step > 10

    monkeypatch.setattr("slipway_registry.cache.publish.sync_directory", sync)
    monkeypatch.setattr("slipway_registry.cache.files.sync_directory", sync)
    publisher.publish(REPO, COMMIT, LISTING, list(CONTENT), MAIN)
    assert contents(snapshot) == CONTENT
    assert (paths.refs / "main").read_text() == COMMIT


def test_a_wrong_link_is_put_right(shelf: BlobShelf, paths: RepoPaths) -> None:
    publisher = Publisher(shelf, RepoLocks())
    publisher.publish(REPO, COMMIT, LISTING, ["config.json"], MAIN)
    link = paths.snapshot(COMMIT) / "config.json"
    link.unlink()
    link.symlink_to(f"../../blobs/{BLOBS[b'deep']}")
    publisher.publish(REPO, COMMIT, LISTING, ["config.json"], MAIN)
    assert link.read_bytes() == b"{}"


def test_links_are_relative(shelf: BlobShelf, paths: RepoPaths, tmp_path: Path) -> None:
    Publisher(shelf, RepoLocks()).publish(REPO, COMMIT, LISTING, list(CONTENT), MAIN)
    moved = tmp_path / "moved"
    shelf.hub.rename(moved)
    assert contents(RepoPaths(moved, REPO).snapshot(COMMIT)) == CONTENT


def test_real_files_share_their_bytes_between_revisions(shelf: BlobShelf, paths: RepoPaths) -> None:
    publisher = Publisher(shelf, RepoLocks(), symlinks=False)
    other = Commit("d" * 40)
    for commit in (COMMIT, other):
        publisher.publish(REPO, commit, LISTING, ["model.gguf"], MAIN)
    first, second = (paths.snapshot(commit) / "model.gguf" for commit in (COMMIT, other))
    assert first.samefile(second)
    assert not first.is_symlink()


def test_real_files_are_copies_where_there_are_no_links_at_all(
    shelf: BlobShelf, paths: RepoPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    Publisher(shelf, RepoLocks(), symlinks=False).publish(REPO, COMMIT, LISTING, ["model.gguf"], MAIN)
    assert (paths.snapshot(COMMIT) / "model.gguf").read_bytes() == b"GGUF"


def test_a_listing_that_only_its_owner_can_read_is_replaced(shelf: BlobShelf, paths: RepoPaths) -> None:
    publisher = Publisher(shelf, RepoLocks())
    publisher.publish(REPO, COMMIT, LISTING, ["config.json"], MAIN)
    paths.tree(COMMIT).chmod(0o600)  # as huggingface_hub writes it
    publisher.publish(REPO, COMMIT, LISTING, ["config.json"], MAIN)
    assert paths.tree(COMMIT).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("modes", "file", "directory"),
    [(Modes(0o644, 0o755), 0o644, 0o755), (Modes.group_shared(), 0o664, 0o2775)],
    ids=["own", "group"],
)
def test_modes(tmp_path: Path, modes: Modes, file: int, directory: int) -> None:
    (tmp_path / "hub").mkdir()
    shelf = BlobShelf(tmp_path / "hub", modes)
    paths = shelf.prepare(REPO)
    (paths.blobs / BLOBS[b"{}"]).write_bytes(b"{}")
    Publisher(shelf, RepoLocks()).publish(REPO, COMMIT, LISTING[:1], ["config.json"], MAIN)
    for path in (paths.tree(COMMIT), paths.refs / "main", paths.keep_ref(COMMIT)):
        assert path.stat().st_mode & 0o7777 == file
    for path in (paths.root, paths.blobs, paths.snapshots, paths.snapshot(COMMIT), paths.refs, paths.ingest):
        assert path.stat().st_mode & 0o7777 == directory


def test_publishing_waits_for_a_deletion(publisher: Publisher, paths: RepoPaths, shelf: BlobShelf) -> None:
    locks = RepoLocks()
    publisher = Publisher(shelf, locks)
    done = threading.Event()

    def publish() -> None:
        publisher.publish(REPO, COMMIT, LISTING, ["config.json"], MAIN)
        done.set()

    with locks.holding(REPO):
        thread = threading.Thread(target=publish)
        thread.start()
        assert not done.wait(0.05)
        assert not paths.snapshot(COMMIT).exists()
        with locks.holding(RepoId("another/one")):
            pass
    thread.join(10)
    assert done.is_set()
