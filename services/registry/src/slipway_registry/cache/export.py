"""A snapshot as real files in a plain directory, each whole and right, or absent."""

import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from slipway_service.fault import Fault, Precondition, Reason
from slipway_service.values import rounded_size
from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import Commit, RepoId

from slipway_registry.cache.files import sync_directory, sync_file
from slipway_registry.cache.plain import kind_of, reads, shown
from slipway_registry.transfer.errors import DiskFull, disk_errors
from slipway_registry.transfer.halt import Halt
from slipway_registry.transfer.hashing import OneCore, digest_of, hash_file

# Copied between two looks at whether to stop.
_PIECE_BYTES = 8 << 20

_DRAFT = ".slipway-"
"""How unfinished files begin."""

_LEFTOVER = re.compile(r"\.slipway-[0-9a-f]{8}")
"""What an export that was killed leaves; the next one into the directory removes it."""


class Export:
    """Copies files in a thread; its figures may be read from another."""

    def __init__(
        self, hub: Path, repo: RepoId, commit: Commit, files: Sequence[RepoFile], directory: Path, *, core: OneCore
    ) -> None:
        self._repo = repo
        self._snapshot = RepoPaths(hub, repo).snapshot(commit)
        self._files = files
        self._directory = directory
        self._core = core
        self.done_bytes = 0
        self.total_bytes = sum(file.size_bytes for file in files)

    def run(self, halt: Halt) -> None:
        """Return when every file is there, has its hash and is on the disk. What an earlier one wrote is kept.

        Raises:
            Fault: PATH_NOT_ALLOWED, the directory holds something else, is none, or another export writes to it;
                HASH_MISMATCH, the cache's copy of a file is damaged; SNAPSHOT_INCOMPLETE, it is gone; DISK_FULL,
                DISK_FAULT. Halted.
        """
        try:
            with disk_errors(self._directory):
                self._check_place()
                made = _make(self._directory)
                with self._alone():
                    leftovers = self._check_directory()
                    missing = [file for file in self._files if not self._has(file, halt)]
                    for leftover in leftovers:
                        leftover.unlink(missing_ok=True)
                    self._check_space(missing)
                    for file in missing:
                        made |= self._copy(file, halt)
                for directory in made | {(self._directory / file.path).parent for file in self._files}:
                    sync_directory(directory)
        except DiskFull as full:
            raise full.fault("What was written stays: export again when there is space.") from full

    def _check_place(self) -> None:
        """Nothing on the way is a file."""
        for path in (self._directory, *self._directory.parents):
            if path.exists():
                if not path.is_dir():
                    text = f"{shown(path)} is a file, no directory: give another directory."
                    raise Fault(Reason.PATH_NOT_ALLOWED, text)
                return

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While the body runs, no other export of this host writes to the directory."""
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = (
                    f"Another export writes to {shown(self._directory)}: wait for its end, or give another directory."
                )
                raise Fault(Reason.PATH_NOT_ALLOWED, text) from None
            except OSError:
                pass  # NFS locks no directories
            yield
        finally:
            os.close(fd)

    def _check_directory(self) -> list[Path]:
        """What killed exports left; nothing is written before everything is known to be in its place."""
        mine = {file.path for file in self._files}
        leftovers = []
        for parent, folders, names in os.walk(self._directory, onerror=_refuse_unread):
            for name in (*folders, *names):
                path = Path(parent, name)
                within = path.relative_to(self._directory).as_posix()
                mode = path.lstat().st_mode
                if within in mine:
                    if not stat.S_ISREG(mode):
                        text = (
                            f"{shown(path)} is {kind_of(mode)}, where a file belongs: "
                            "remove it, or give another directory."
                        )
                        raise Fault(Reason.PATH_NOT_ALLOWED, text)
                elif _LEFTOVER.fullmatch(name) and stat.S_ISREG(mode):
                    leftovers.append(path)
                elif name in names:
                    text = (
                        f"{shown(self._directory)} holds {shown(within)}, which is no file of the export: "
                        "give another directory."
                    )
                    raise Fault(Reason.PATH_NOT_ALLOWED, text)
        for file in self._files:
            folder = (self._directory / file.path).parent
            if not Path(os.path.realpath(folder)).is_relative_to(self._directory):
                raise Fault(Reason.PATH_NOT_ALLOWED, f"{shown(folder)} is, or lies below, a link to another place.")
        return leftovers

    def _has(self, file: RepoFile, halt: Halt) -> bool:
        """Whether an earlier export wrote the file.

        Raises:
            Fault: PATH_NOT_ALLOWED, somebody else has one of this name.
        """
        path = self._directory / file.path
        if not path.exists():
            return False
        # Where nothing says the hash, what the cache has does.
        expected = file.blob_id or self._hash(self._snapshot / file.path, file, halt)
        if path.stat().st_size != file.size_bytes or self._hash(path, file, halt) != expected:
            text = f"{shown(path)} is there and another file than the export's: remove it, or give another directory."
            raise Fault(Reason.PATH_NOT_ALLOWED, text)
        sync_file(path)
        self.done_bytes += file.size_bytes
        return True

    def _hash(self, path: Path, file: RepoFile, halt: Halt) -> str:
        return hash_file(path, file.blob_id, self._core, halt, lambda _: None)

    def _check_space(self, missing: Sequence[RepoFile]) -> None:
        needed = sum(file.size_bytes for file in missing)
        free = shutil.disk_usage(self._directory).free
        if needed > free:
            text = f"{rounded_size(needed)} are needed in {self._directory}, {rounded_size(free)} are free"
            facts = {"needed": str(needed), "free": str(free)}
            place = (Precondition("DISK", str(self._directory), text),)
            raise Fault(Reason.DISK_FULL, text, facts=facts, preconditions=place)

    def _copy(self, file: RepoFile, halt: Halt) -> set[Path]:
        """Write one file; the directories that got a new entry by that."""
        target = self._directory / file.path
        made = _make(target.parent)
        draft = target.with_name(f"{_DRAFT}{secrets.token_hex(4)}")
        try:
            with draft.open("xb") as copy:
                digest = digest_of(file.blob_id, file.size_bytes)
                for piece in self._pieces(file):
                    halt.check()
                    digest.update(piece)
                    copy.write(piece)
                    self.done_bytes += len(piece)
                # Nothing says the hash of a file that some other tool put into the cache without a link.
                if file.blob_id and digest.hexdigest() != file.blob_id:
                    raise self._damaged(file, f"has the hash {digest.hexdigest()} instead of {file.blob_id}")
                copy.flush()
                os.fsync(copy.fileno())
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
        return made

    def _pieces(self, file: RepoFile) -> Iterator[bytes]:
        """What the cache has of a file, if that is as long as it should be."""
        path = self._snapshot / file.path
        with disk_errors(path):
            try:
                fd = reads(path, follow=True)
            except FileNotFoundError:
                text = f"{file.path} of {self._repo} is not in the cache any more: download it again."
                raise Fault(Reason.SNAPSHOT_INCOMPLETE, text, facts={"missing": "1"}) from None
            with open(fd, "rb", buffering=0) as source:
                size = os.fstat(fd).st_size
                if size != file.size_bytes:
                    raise self._damaged(file, f"has {size} bytes instead of {file.size_bytes}")
                while piece := source.read(_PIECE_BYTES):
                    yield piece

    def _damaged(self, file: RepoFile, what: str) -> Fault:
        text = (
            f"{file.path} of {self._repo} is damaged in the cache: it {what}. It was not exported; "
            "`slipway cache verify --repair` fetches it again."
        )
        return Fault(Reason.HASH_MISMATCH, text, facts={"path": file.path})


def _make(directory: Path) -> set[Path]:
    """Create a directory and its parents; those that got a new entry."""
    if directory.is_dir():
        return set()
    changed = _make(directory.parent)
    directory.mkdir(exist_ok=True)
    return changed | {directory.parent}


def _refuse_unread(error: OSError) -> None:
    """Who cannot see what a directory holds must not write to it."""
    raise error
