"""Hashing the files of a snapshot, and saving what is good of those that are damaged for their repair."""

import contextlib
import os
import time
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import Commit, RepoId

from slipway_registry.cache.blobs import BlobShelf
from slipway_registry.cache.names import blob_of
from slipway_registry.cache.records import CacheRecords
from slipway_registry.jobs.store import Store, VerifiedBlob
from slipway_registry.transfer.errors import Setback
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


class Verification:
    """Hashes files of one snapshot in a thread; its figures may be read from another.

    Each content is hashed once, however many paths link it. What was right is remembered, and what was wrong too.

    Args:
        repair: keep the good blocks of damaged files, where their crcs are known, for the download that repairs them.
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
    ) -> None:
        self._shelf = shelf
        self._store = store
        self._records = records
        self._repo = repo
        self._snapshot = RepoPaths(shelf.hub, repo).snapshot(commit)
        self._files = files
        self._core = core
        self._repair = repair
        self._verdicts: dict[str, Finding | None] = {}
        self.findings: list[Finding] = []
        self.done_bytes = 0
        self.total_bytes = sum({file.blob_id: file.size_bytes for file in files}.values())

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
                text = f"it has {status.st_size} bytes instead of {file.size_bytes}"
                return self._finding(FindingKind.MISSING, file, detail=text)
            if file.blob_id not in self._verdicts:
                self._verdicts[file.blob_id] = self._hash(file, path, status, halt)
            verdict = self._verdicts[file.blob_id]
            return verdict and self._finding(verdict.kind, file, actual=verdict.actual)
        except FileNotFoundError:
            return self._finding(FindingKind.MISSING, file, detail="its content is not there")
        except OSError as error:
            return self._finding(FindingKind.UNREADABLE, file, detail=f"{error.strerror}")

    def _hash(self, file: RepoFile, path: Path, status: os.stat_result, halt: Halt) -> Finding | None:
        def add(count: int) -> None:
            self.done_bytes += count

        digest = hash_file(path, file.blob_id, self._core, halt, add)
        known = [it for it in self._store.verified(file.blob_id) if it.repo == self._repo]
        crcs = known[0].block_crcs if known else None
        if digest == file.blob_id:
            self._remember(file, status, crcs)
            return None
        if self._repair and crcs:
            self._salvage(file, path, crcs)
        self._records.set_damaged(self._repo, file.blob_id, inode=status.st_ino, mtime_ns=status.st_mtime_ns)
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
        self._store.set_verified(blob, at=time.time())
        self._records.clear_damaged(self._repo, file.blob_id)

    def _salvage(self, file: RepoFile, path: Path, crcs: bytes) -> None:
        """Begin a partial with the blocks that have their crc: the repair fetches the others only."""
        expected = array("I", crcs)
        directory = self._shelf.partial(self._repo, blob_of(file))
        with (
            contextlib.suppress(Setback),
            path.open("rb") as source,
            Partial.open(directory, file.size_bytes) as partial,
        ):
            for block, crc in enumerate(expected):
                content = source.read(BLOCK_BYTES)
                if zlib.crc32(content) == crc:
                    partial.write(block * BLOCK_BYTES, memoryview(content))

    def _finding(self, kind: FindingKind, file: RepoFile, *, actual: str = "", detail: str = "") -> Finding:
        return Finding(kind=kind, path=file.path, expected=file.blob_id, actual=actual, detail=detail)
