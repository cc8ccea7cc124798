"""Hashing the files of a snapshot, and saving what is good of those that are damaged for their repair."""

import contextlib
import os
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from crc32c import crc32c
from slipway_service.fault import Fault
from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import Commit, RepoId

from slipway_registry.cache.blobs import BlobShelf
from slipway_registry.cache.names import blob_of
from slipway_registry.cache.records import CacheRecords
from slipway_registry.jobs.store import Store, VerifiedBlob
from slipway_registry.transfer.errors import DiskFull, Setback
from slipway_registry.transfer.frontier import BLOCK_BYTES
from slipway_registry.transfer.halt import Halt
from slipway_registry.transfer.hashing import OneCore, hash_file
from slipway_registry.transfer.partial import Partial


class FindingKind(StrEnum):
    """What is wrong; names as in `slipway.registry.v1.FindingKind`."""

    DAMAGED = "DAMAGED"
    MISSING = "MISSING"
    UNREADABLE = "UNREADABLE"
    REPAIRED = "REPAIRED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong with a file; `actual` is empty when it could not be read whole."""

    kind: FindingKind
    path: str
    expected: str
    actual: str = ""
    detail: str = ""


Content = tuple[str, int, int]
"""What is hashed once, however many paths link it: the hash it should have, device and inode."""

Hasher = Callable[[Path, str, OneCore, Halt, Callable[[int], None]], str]
"""As `hash_file`."""


class Verification:
    """Hashes files of one snapshot in a thread; its figures may be read from another.

    Each content is hashed once, however many paths link it. What was right is remembered, and what was wrong too.

    Attributes:
        repos: this one, and others that share a file which was found damaged.

    Args:
        repair: keep the good blocks of damaged files, where their crcs are known, for the download that repairs them.
        hasher: hashes a file.
        clock: seconds since 1970, for when a file was right.
    """

    def __init__(
        self,
        shelf: BlobShelf,
        store: Store,
        records: CacheRecords,
        repo: RepoId,
        commit: Commit,
        files: Sequence[RepoFile],
        *,
        core: OneCore,
        repair: bool = False,
        hasher: Hasher = hash_file,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._shelf = shelf
        self._store = store
        self._records = records
        self._repo = repo
        self._snapshot = RepoPaths(shelf.hub, repo).snapshot(commit)
        self._files = files
        self._core = core
        self._repair = repair
        self._hasher = hasher
        self._clock = clock
        self._verdicts: dict[Content, Finding | None] = {}
        self.repos = {repo}
        self.findings: list[Finding] = []
        self.done_bytes = 0
        self.total_bytes = sum({self._counted(file): file.size_bytes for file in files}.values())

    def run(self, halt: Halt) -> None:
        """Return when every file has been hashed.

        Raises:
            Halted, Fault: the database cannot be written.
        """
        for file in self._files:
            halt.check()
            finding = self._examine(file, halt)
            if finding is not None:
                self.findings.append(finding)

    def _examine(self, file: RepoFile, halt: Halt) -> Finding | None:
        path = self._snapshot / file.path
        try:
            status = path.stat()
            if status.st_size != file.size_bytes:
                kind = FindingKind.MISSING if status.st_size < file.size_bytes else FindingKind.DAMAGED
                return self._finding(kind, file, detail=f"it has {status.st_size} bytes instead of {file.size_bytes}")
            content = _content(file, status)
            if content not in self._verdicts:
                self._verdicts[content] = self._hash(file, path, status, halt)
            verdict = self._verdicts[content]
            return verdict and self._finding(verdict.kind, file, actual=verdict.actual)
        except FileNotFoundError:
            return self._finding(FindingKind.MISSING, file, detail="its content is not there")
        except OSError as error:
            return self._finding(FindingKind.UNREADABLE, file, detail=f"{error.strerror}")

    def _counted(self, file: RepoFile) -> Content | str:
        """What counts once: a content, or a file without one."""
        try:
            return _content(file, (self._snapshot / file.path).stat())
        except OSError:
            return file.path

    def _hash(self, file: RepoFile, path: Path, status: os.stat_result, halt: Halt) -> Finding | None:
        def add(count: int) -> None:
            self.done_bytes += count

        digest = self._hasher(path, file.blob_id, self._core, halt, add)
        crcs = self._records.block_crcs(self._repo, file.blob_id)
        if digest == file.blob_id:
            self._remember(file, status, crcs)
            return None
        self.repos |= self._records.set_damaged(
            self._repo, file.blob_id, inode=status.st_ino, mtime_ns=status.st_mtime_ns
        )
        if self._repair and crcs and path.samefile(self._shelf.path(self._repo, blob_of(file))):
            self._salvage(file, path, crcs)
        return self._finding(FindingKind.DAMAGED, file, actual=digest)

    def _remember(self, file: RepoFile, status: os.stat_result, crcs: bytes | None) -> None:
        blob = VerifiedBlob(
            repo=self._repo,
            etag=file.blob_id,
            size=file.size_bytes,
            inode=status.st_ino,
            mtime_ns=status.st_mtime_ns,
            block_crcs=crcs,
        )
        self._store.set_verified(blob, at=self._clock())
        self._records.clear_damaged(self._repo, file.blob_id)

    def _salvage(self, file: RepoFile, path: Path, crcs: bytes) -> None:
        """Begin a partial with the blocks that have their crc: the repair fetches the others only.

        What keeps it from that, a full disk or another process, keeps the download from it too, which says so.
        """
        expected = array("I", crcs)
        directory = self._shelf.partial(self._repo, blob_of(file))
        with (
            contextlib.suppress(Setback, DiskFull, Fault),
            path.open("rb") as source,
            Partial.open(directory, file.size_bytes) as partial,
        ):
            for block, crc in enumerate(expected):
                content = source.read(BLOCK_BYTES)
                if crc32c(content) == crc:
                    partial.write(block * BLOCK_BYTES, memoryview(content))

    def _finding(self, kind: FindingKind, file: RepoFile, *, actual: str = "", detail: str = "") -> Finding:
        return Finding(kind=kind, path=file.path, expected=file.blob_id, actual=actual, detail=detail)


def _content(file: RepoFile, status: os.stat_result) -> Content:
    return file.blob_id, status.st_dev, status.st_ino
