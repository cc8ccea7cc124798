"""Taking a directory in: whole or not at all."""

import errno
import hashlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from slipway_registry.cache.layout import Modes
from slipway_registry.cache.take_in import Intake, clear_interrupted
from slipway_registry.cache.verify import FindingKind
from slipway_registry.rpc import snapshot_messages as messages
from slipway_registry.transfer.budget import DiskBudget
from slipway_registry.transfer.halt import Halt, Halted
from slipway_service.fault import Fault, Reason
from slipway_service.weights.names import BlobId, Commit, RepoId, Revision

from tests.unit.registry.cache.caches import Cache, listing_of, note_syncs

REPO, COMMIT = "org/m", "1" * 40
FILES = {"a.bin": b"a" * 3_000_000, "b.bin": b"b" * 3_000_000, "copy-of-a.bin": b"a" * 3_000_000}

NO_ROOM = 1 << 60
"""A reserve that leaves no byte of any disk."""


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path / "cache")
    yield made
    made.close()


def intake(cache: Cache, directory: Path, *, reserve: int = 0, files: Mapping[str, bytes] = FILES) -> Intake:
    return Intake(
        cache.shelf,
        cache.publisher,
        cache.store,
        DiskBudget(cache.hub, reserve=reserve),
        RepoId(REPO),
        Commit(COMMIT),
        Revision("main"),
        listing_of(files),
        directory,
        now=0.0,
    )


def filled(directory: Path) -> Path:
    directory.mkdir()
    for name, data in FILES.items():
        (directory / name).write_bytes(data)
    return directory


class HaltAtByte(Halt):
    """Stops the work when it has done so much."""

    work: Intake
    limit: int

    def check(self) -> None:
        if self.work.done_bytes >= self.limit:
            raise Halted


@pytest.mark.parametrize("limit", [0, 2_000_000, 4_000_000, 8_000_000])
def test_one_that_is_stopped_leaves_nothing(cache: Cache, tmp_path: Path, limit: int) -> None:
    halt = HaltAtByte()
    halt.work, halt.limit = intake(cache, filled(tmp_path / "m")), limit
    with pytest.raises(Halted):
        halt.work.run(halt)
    assert not [path for path in cache.hub.rglob("*") if path.is_file()]


def test_a_wrong_copy_does_not_spoil_a_right_one(cache: Cache, tmp_path: Path) -> None:
    directory = filled(tmp_path / "m")
    (directory / "copy-of-a.bin").write_bytes(b"x" * 3_000_000)
    work = intake(cache, directory)
    work.run(Halt())
    assert [finding.path for finding in work.findings] == ["copy-of-a.bin"]
    snapshot = cache.paths(REPO).snapshot(Commit(COMMIT))
    assert {path.name: path.read_bytes() == FILES[path.name] for path in snapshot.iterdir()} == {
        "a.bin": True,
        "b.bin": True,
    }
    assert not list(cache.paths(REPO).ingest.glob("import-*"))


def put_away(cache: Cache, repo: str) -> None:
    """The files, published and verified as a download would leave them."""
    cache.publish(repo, COMMIT, FILES)
    for file in listing_of(FILES):
        blob = cache.paths(repo).blob(BlobId(file.blob_id))
        cache.verified(repo, file, blob.stat(), at=1.0)


def blob_of(cache: Cache, name: str, repo: str = REPO) -> Path:
    return cache.paths(repo).blob(BlobId(hashlib.sha256(FILES[name]).hexdigest()))


def kinds(work: Intake) -> dict[str, FindingKind]:
    for finding in work.findings:
        messages.finding(finding)  # it can be told
    return {finding.path: finding.kind for finding in work.findings}


def make_fifo(at: Path) -> None:
    os.mkfifo(at)  # one that is opened as a file is waits for ever


def make_socket(at: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(at))


def make_loop(at: Path) -> None:
    at.symlink_to(at)


def make_dangling(at: Path) -> None:
    at.symlink_to(at.with_name("nowhere"))


def make_link_to_directory(at: Path) -> None:
    (at.parent / "folder").mkdir()
    at.symlink_to(at.parent / "folder")


def make_link_to_fifo(at: Path) -> None:
    os.mkfifo(at.parent / ".pipe")
    at.symlink_to(at.parent / ".pipe")


@pytest.mark.parametrize(
    "make",
    [make_fifo, make_socket, make_loop, make_dangling, make_link_to_directory, make_link_to_fifo, Path.mkdir],
)
def test_what_is_no_file_is_named_and_the_rest_is_taken(
    cache: Cache, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    directory = filled(tmp_path / "m")
    (directory / "b.bin").unlink()
    make(directory / "b.bin")
    work = intake(cache, directory)
    work.run(Halt())
    assert kinds(work)["b.bin"] is FindingKind.UNREADABLE
    snapshot = cache.paths(REPO).snapshot(Commit(COMMIT))
    assert sorted(path.name for path in snapshot.iterdir()) == ["a.bin", "copy-of-a.bin"]


def test_links_out_of_the_directory_are_not_followed(cache: Cache, tmp_path: Path) -> None:
    directory = filled(tmp_path / "m")
    (directory / "b.bin").rename(tmp_path / "b.bin")
    (directory / "b.bin").symlink_to(tmp_path / "b.bin")
    (directory / "elsewhere").symlink_to(tmp_path)
    work = intake(cache, directory)
    work.run(Halt())
    assert kinds(work) == {"b.bin": FindingKind.UNREADABLE, "elsewhere": FindingKind.MISSING}
    assert not blob_of(cache, "b.bin").exists()


def test_a_link_in_a_folders_place_is_no_small_matter(cache: Cache, tmp_path: Path) -> None:
    """Files of the commit that seem to be there are not taken; one of its own that is not there is no finding."""
    directory = filled(tmp_path / "m")
    (tmp_path / "deep").mkdir()
    (directory / "sub").symlink_to(tmp_path / "deep")
    work = intake(cache, directory, files={**FILES, "sub/deep/c.bin": b"c"})
    work.run(Halt())
    assert kinds(work) == {"sub": FindingKind.UNREADABLE}


def test_a_link_within_the_directory_is_a_file(cache: Cache, tmp_path: Path) -> None:
    directory = filled(tmp_path / "m")
    (directory / "copy-of-a.bin").unlink()
    (directory / "copy-of-a.bin").symlink_to("a.bin")
    work = intake(cache, directory)
    work.run(Halt())
    assert work.findings == []


def test_a_name_that_is_no_text_can_be_told(cache: Cache, tmp_path: Path) -> None:
    directory = filled(tmp_path / "m")
    Path(os.fsdecode(os.fsencode(directory) + b"/\xff")).write_bytes(b"")
    work = intake(cache, directory)
    work.run(Halt())
    assert kinds(work) == {r"\xff": FindingKind.MISSING}


@pytest.mark.parametrize("place", ["missing", "a file"])
def test_a_directory_that_is_none_is_called_so(cache: Cache, tmp_path: Path, place: str) -> None:
    (tmp_path / "a file").write_bytes(b"")
    with pytest.raises(Fault) as caught:
        intake(cache, tmp_path / place).run(Halt())
    assert caught.value.reason is Reason.PATH_NOT_ALLOWED
    said = {"missing": "No such file or directory", "a file": "Not a directory"}
    assert said[place] in caught.value.text


@pytest.mark.parametrize("size", [2_999_999, 10**12])
def test_a_file_of_another_size_is_not_even_read(cache: Cache, tmp_path: Path, size: int) -> None:
    directory = filled(tmp_path / "m")
    os.truncate(directory / "b.bin", size)
    work = intake(cache, directory)
    work.run(Halt())
    assert kinds(work) == {"b.bin": FindingKind.DAMAGED}
    assert (work.done_bytes, work.total_bytes) == (6_000_000, 6_000_000)


def test_a_file_that_grows_is_read_no_further(cache: Cache, tmp_path: Path) -> None:
    directory = filled(tmp_path / "m")
    work = intake(cache, directory)

    class Growing(Halt):
        def check(self) -> None:
            if work.done_bytes == 1 << 20:
                os.truncate(directory / "a.bin", 10**12)

    work.run(Growing())
    assert kinds(work) == {"a.bin": FindingKind.DAMAGED}
    assert work.findings[0].detail == "it grew while it was read"
    assert work.done_bytes < 10_000_000


def test_space_is_claimed_for_every_copy(cache: Cache, tmp_path: Path) -> None:
    """Also for two files of one content, two until both are hashed, and for a blob that has to be replaced."""
    directory = filled(tmp_path / "m")
    blob = blob_of(cache, "b.bin")
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"x" * 3_000_000)
    work = intake(cache, directory, reserve=NO_ROOM)
    with pytest.raises(Fault) as caught:
        work.run(Halt())
    assert caught.value.reason is Reason.DISK_FULL
    assert caught.value.facts["needed"] == "9000000"
    assert work.done_bytes == 0


def test_a_full_disk_is_the_caches(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    directory = filled(tmp_path / "m")
    with pytest.raises(Fault) as caught:
        intake(cache, directory).run(Halt())
    assert caught.value.reason is Reason.DISK_FULL
    assert str(cache.hub) in caught.value.text
    assert str(directory) not in caught.value.text
    assert [it.subject for it in caught.value.preconditions] == [str(cache.hub)]


def test_what_is_there_is_left_alone(cache: Cache, tmp_path: Path) -> None:
    """Verified, or hashed now; hard links to other repositories stay, and nothing is claimed or copied."""
    put_away(cache, "org/other")
    put_away(cache, REPO)
    os.utime(blob_of(cache, "b.bin"), ns=(1, 1))  # no longer what the records know
    before = {name: blob_of(cache, name).stat().st_ino for name in FILES}
    work = intake(cache, filled(tmp_path / "m"), reserve=NO_ROOM)
    work.run(Halt())
    assert {name: blob_of(cache, name).stat().st_ino for name in FILES} == before
    assert {blob_of(cache, name).stat().st_nlink for name in FILES} == {2}


def test_what_another_repository_has_is_linked(cache: Cache, tmp_path: Path) -> None:
    put_away(cache, "org/other")
    work = intake(cache, filled(tmp_path / "m"), reserve=NO_ROOM)
    work.run(Halt())
    assert work.done_bytes == work.total_bytes
    for name in FILES:
        assert blob_of(cache, name).samefile(blob_of(cache, name, "org/other"))
        assert {it.repo for it in cache.store.verified(blob_of(cache, name).name)} == {"org/other", REPO}
    assert not list(cache.paths(REPO).ingest.glob("import-*"))


def test_what_is_damaged_is_replaced_and_not_what_shares_it(cache: Cache, tmp_path: Path) -> None:
    put_away(cache, REPO)
    blob_of(cache, "a.bin").write_bytes(b"x" * 3_000_000)
    work = intake(cache, filled(tmp_path / "m"))
    work.run(Halt())
    assert blob_of(cache, "a.bin").read_bytes() == FILES["a.bin"]


def test_a_damaged_blob_that_nothing_replaces_is_not_called_verified(cache: Cache, tmp_path: Path) -> None:
    put_away(cache, REPO)
    blob_of(cache, "b.bin").write_bytes(b"x" * 3_000_000)
    directory = filled(tmp_path / "m")
    (directory / "b.bin").write_bytes(b"y" * 3_000_000)
    work = intake(cache, directory)
    work.run(Halt())
    assert kinds(work) == {"b.bin": FindingKind.DAMAGED}
    blob = blob_of(cache, "b.bin")
    assert blob.stat().st_mtime_ns not in {it.mtime_ns for it in cache.store.verified(blob.name)}


def test_blobs_are_on_the_disk_before_they_are_named(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = note_syncs(monkeypatch)
    intake(cache, filled(tmp_path / "m")).run(Halt())
    blobs = cache.paths(REPO).blobs
    assert {path.name for path in (blobs, *blobs.iterdir()) if path.stat().st_ino not in synced} == set()


def test_blobs_have_the_caches_mode(cache: Cache, tmp_path: Path) -> None:
    directory = filled(tmp_path / "m")
    for path in directory.iterdir():
        path.chmod(0o600)
    cache.shelf.modes = Modes(file=0o664, directory=0o2775)
    intake(cache, directory).run(Halt())
    assert {blob_of(cache, name).stat().st_mode & 0o7777 for name in FILES} == {0o664}


def test_what_killed_imports_left_is_cleared(cache: Cache) -> None:
    ingest = cache.shelf.prepare(RepoId(REPO)).ingest
    (ingest / "import-0123456789abcdef-0").write_bytes(b"half")
    (ingest / ("a" * 64)).mkdir()
    clear_interrupted(cache.shelf, [RepoId(REPO), RepoId("org/none")])
    assert [path.name for path in ingest.iterdir()] == ["a" * 64]
