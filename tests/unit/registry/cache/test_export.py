"""Writing a snapshot into a directory: what is right, on the disk, and nowhere else."""

import errno
import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from slipway_registry.cache.export import Export
from slipway_registry.transfer.halt import Halt, Halted
from slipway_registry.transfer.hashing import OneCore
from slipway_service.fault import Fault, Reason
from slipway_service.rpc_errors import to_status
from slipway_service.weights.names import Commit, RepoId

from tests.unit.registry.cache.caches import Cache, listing_of, note_syncs

REPO, COMMIT = "org/m", "1" * 40
FILES = {"a.bin": b"a" * 3_000, "sub/b.bin": b"b" * 5_000}


class Usage(NamedTuple):
    """As `shutil.disk_usage` has it, in bytes."""

    total: int
    used: int
    free: int


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path / "cache")
    made.publish(REPO, COMMIT, FILES)
    yield made
    made.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "out" / "m"


def export(cache: Cache, directory: Path) -> Export:
    return Export(cache.hub, RepoId(REPO), Commit(COMMIT), listing_of(FILES), directory, core=OneCore())


def refused(cache: Cache, directory: Path) -> Fault:
    with pytest.raises(Fault) as caught:
        export(cache, directory).run(Halt())
    to_status(caught.value)  # it can be told
    return caught.value


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("damage", [b"x" * 3_000, b"a" * 2_999, b"a" * 3_001])
def test_a_damaged_file_is_never_exported(cache: Cache, directory: Path, damage: bytes) -> None:
    (cache.paths(REPO).snapshot(Commit(COMMIT)) / "a.bin").write_bytes(damage)
    fault = refused(cache, directory)
    assert fault.reason is Reason.HASH_MISMATCH
    assert "a.bin" in fault.text
    assert "slipway cache verify --repair" in fault.text
    assert contents(directory) == {}


def test_a_file_that_is_gone_is_named(cache: Cache, directory: Path) -> None:
    (cache.paths(REPO).snapshot(Commit(COMMIT)) / "a.bin").resolve().unlink()
    fault = refused(cache, directory)
    assert (fault.reason, "a.bin" in fault.text) == (Reason.SNAPSHOT_INCOMPLETE, True)


def test_everything_is_on_the_disk_when_it_is_done(
    cache: Cache, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = note_syncs(monkeypatch)
    export(cache, directory).run(Halt())
    assert contents(directory) == FILES
    written = [directory.parent.parent, directory.parent, directory, *directory.rglob("*")]
    assert {path for path in written if path.stat().st_ino not in synced} == set()


@pytest.mark.parametrize("there", [False, True])
def test_an_export_asks_for_space_first(
    cache: Cache, directory: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    if there:  # what an earlier one wrote stays
        export(cache, directory).run(Halt())
        (directory / "a.bin").unlink()
    before = contents(directory)
    least = 3_000 if there else 8_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, least - 1))
    assert refused(cache, directory).reason is Reason.DISK_FULL
    assert contents(directory) == before
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, least))
    export(cache, directory).run(Halt())


def test_a_disk_that_fills_meanwhile_is_named(cache: Cache, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    fault = refused(cache, directory)
    assert fault.reason is Reason.DISK_FULL
    assert [(it.type, it.subject) for it in fault.preconditions] == [("DISK", str(directory))]


def test_what_a_killed_export_left_is_removed(cache: Cache, directory: Path) -> None:
    (directory / "sub").mkdir(parents=True)
    for left in (directory / ".slipway-0123abcd", directory / "sub" / ".slipway-ffffffff"):
        left.write_bytes(b"half")
    export(cache, directory).run(Halt())
    assert contents(directory) == FILES


def test_a_stopped_export_leaves_whole_files_only(cache: Cache, directory: Path) -> None:
    work = export(cache, directory)

    class Midway(Halt):
        def check(self) -> None:
            if work.done_bytes:
                raise Halted

    with pytest.raises(Halted):
        work.run(Midway())
    assert contents(directory) == {"a.bin": FILES["a.bin"]}
    assert not list(directory.rglob(".slipway-*"))


def test_another_ones_files_are_not_touched(cache: Cache, directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / ".slipway-0123abcd").write_bytes(b"half")
    (directory / ".slipway-notes").write_bytes(b"mine")
    fault = refused(cache, directory)
    assert (fault.reason, ".slipway-notes" in fault.text) == (Reason.PATH_NOT_ALLOWED, True)
    assert set(contents(directory)) == {".slipway-0123abcd", ".slipway-notes"}


@pytest.mark.parametrize("mine", [b"mine", b"x" * 3_000], ids=["another size", "the same size"])
def test_another_ones_file_of_the_same_name_is_not_touched(cache: Cache, directory: Path, mine: bytes) -> None:
    directory.mkdir(parents=True)
    (directory / "a.bin").write_bytes(mine)
    fault = refused(cache, directory)
    assert fault.reason is Reason.PATH_NOT_ALLOWED
    assert f"{directory / 'a.bin'} is there and another" in fault.text
    assert contents(directory) == {"a.bin": mine}


def test_what_an_earlier_export_wrote_is_kept(cache: Cache, directory: Path) -> None:
    export(cache, directory).run(Halt())
    (directory / "sub" / "b.bin").unlink()
    before = (directory / "a.bin").stat()
    work = export(cache, directory)
    work.run(Halt())
    assert contents(directory) == FILES
    assert (directory / "a.bin").stat().st_ino == before.st_ino
    assert work.done_bytes == work.total_bytes == 8_000


def test_a_file_without_a_hash_is_compared_with_what_the_cache_has(cache: Cache, directory: Path) -> None:
    files = [replace(file, blob_id="") for file in listing_of(FILES)]
    work = Export(cache.hub, RepoId(REPO), Commit(COMMIT), files, directory, core=OneCore())
    work.run(Halt())
    Export(cache.hub, RepoId(REPO), Commit(COMMIT), files, directory, core=OneCore()).run(Halt())
    assert contents(directory) == FILES
    (directory / "a.bin").write_bytes(b"x" * 3_000)
    with pytest.raises(Fault, match="is there and another"):
        Export(cache.hub, RepoId(REPO), Commit(COMMIT), files, directory, core=OneCore()).run(Halt())


def test_a_name_that_is_no_text_can_be_told(cache: Cache, directory: Path) -> None:
    directory.mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(directory) + b"/\xff")).write_bytes(b"")
    fault = refused(cache, directory)
    assert (fault.reason, r"holds \xff," in fault.text) == (Reason.PATH_NOT_ALLOWED, True)


def test_links_are_never_followed_out(cache: Cache, directory: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_bytes(b"mine")
    directory.mkdir(parents=True)
    (directory / "sub").symlink_to(outside / "deep")
    assert refused(cache, directory).reason is Reason.PATH_NOT_ALLOWED
    (directory / "sub").unlink()
    (directory / "sub").symlink_to(outside)
    assert refused(cache, directory).reason is Reason.PATH_NOT_ALLOWED
    (directory / "sub").unlink()
    (directory / "a.bin").symlink_to(outside / "mine")
    assert refused(cache, directory).reason is Reason.PATH_NOT_ALLOWED
    assert contents(outside) == {"mine": b"mine"}
    assert not (outside / "deep").exists()
    assert contents(directory) == {"a.bin": b"mine"}


@pytest.mark.parametrize("kind", ["directory", "fifo", "socket", "loop"])
def test_something_else_in_a_files_place_is_refused(cache: Cache, directory: Path, kind: str) -> None:
    directory.mkdir(parents=True)
    at = directory / "a.bin"
    match kind:
        case "directory":
            at.mkdir()
        case "fifo":
            os.mkfifo(at)
        case "socket":
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(os.path.relpath(at))
        case _:
            at.symlink_to(at)
    fault = refused(cache, directory)
    assert (fault.reason, "a.bin" in fault.text) == (Reason.PATH_NOT_ALLOWED, True)


@pytest.mark.parametrize("below", ["", "x", "x/y"])
def test_a_file_is_no_directory(cache: Cache, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    fault = refused(cache, tmp_path / "file" / below)
    assert fault.reason is Reason.PATH_NOT_ALLOWED
    assert f"{tmp_path / 'file'} is a file" in fault.text


def test_two_exports_do_not_share_a_directory(cache: Cache, directory: Path) -> None:
    directory.mkdir(parents=True)
    fd = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        assert refused(cache, directory).reason is Reason.PATH_NOT_ALLOWED
    finally:
        os.close(fd)
    export(cache, directory).run(Halt())
