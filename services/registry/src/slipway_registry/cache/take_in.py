"""A directory of real files into the cache, each by its hash: what the commit's listing says is taken, no more."""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from slipway_service.fault import Fault, Reason
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import BlobId, Commit, RepoId, Revision

from slipway_registry.cache.blobs import BlobShelf
from slipway_registry.cache.files import sync_directory
from slipway_registry.cache.names import blob_of
from slipway_registry.cache.publish import Publisher
from slipway_registry.cache.verify import Finding, FindingKind
from slipway_registry.jobs.store import Store, VerifiedBlob
from slipway_registry.transfer.budget import Claim, DiskBudget
from slipway_registry.transfer.errors import DiskFull, disk_errors
from slipway_registry.transfer.halt import Halt
from slipway_registry.transfer.hashing import digest_of

_PIECE_BYTES = 1 << 20

# What huggingface_hub and git put beside a model's files, and no commit has.
_ASIDE = {".cache", ".git"}


class Intake:
    """Hashes and copies files in a thread; its figures may be read from another. The directory is only read.

    Args:
        listing: every file of the commit.
    """

    def __init__(
        self,
        shelf: BlobShelf,
        publisher: Publisher,
        store: Store,
        budget: DiskBudget,
        repo: RepoId,
        commit: Commit,
        revision: Revision,
        listing: Sequence[RepoFile],
        directory: Path,
        *,
        now: float,
    ) -> None:
        self._shelf = shelf
        self._publisher = publisher
        self._store = store
        self._budget = budget
        self._repo = repo
        self._commit = commit
        self._revision = revision
        self._listing: dict[str, RepoFile] = {file.path: file for file in listing}
        self._directory = directory
        self._now = now
        self._user = f"import-{secrets.token_hex(8)}"
        self.findings: list[Finding] = []
        self.done_bytes = 0
        self.total_bytes = 0

    def run(self, halt: Halt) -> None:
        """Return when what is right is published.

        Raises:
            Fault: HASH_MISMATCH, no file of the directory is one of the commit; DISK_FULL, DISK_FAULT. Halted.
        """
        try:
            with disk_errors(self._directory):
                self._take(halt)
        except DiskFull as full:
            raise Fault(Reason.DISK_FULL, f"{full}. Nothing was published.") from full
        finally:
            self._budget.release(self._user)

    def _take(self, halt: Halt) -> None:
        found = self._files()
        self.total_bytes = sum(path.stat().st_size for path in found.values())
        paths = self._shelf.prepare(self._repo)
        self._claim(found)
        taken = [name for name, path in found.items() if self._take_one(self._listing[name], path, halt)]
        if not taken:
            text = f"No file of {self._directory} is one of {self._repo} at {self._commit}."
            raise Fault(Reason.HASH_MISMATCH, text, facts={"findings": str(len(self.findings))})
        sync_directory(paths.blobs)
        self._publisher.publish(self._repo, self._commit, self._listing.values(), taken, self._revision)

    def _files(self) -> dict[str, Path]:
        """Files that the commit has too, by path; the others are findings."""
        found = {}
        for parent, folders, names in os.walk(self._directory):
            folders[:] = sorted(set(folders) - _ASIDE)
            for name in sorted(names):
                path = Path(parent, name)
                within = path.relative_to(self._directory).as_posix()
                if within in self._listing and path.resolve().is_relative_to(self._directory):
                    found[within] = path
                else:
                    detail = "the commit has no such file" if within not in self._listing else "a link to elsewhere"
                    self.findings.append(Finding(kind=FindingKind.MISSING, path=within, expected="", detail=detail))
        return found

    def _claim(self, found: dict[str, Path]) -> None:
        wanted = {}
        for name in found:
            file = self._listing[name]
            if not self._shelf.path(self._repo, blob_of(file)).exists():
                wanted[file.blob_id] = Claim(file.size_bytes, self._staged(blob_of(file)))
        if shortage := self._budget.claim(self._user, wanted):
            raise shortage.fault()

    def _take_one(self, file: RepoFile, path: Path, halt: Halt) -> bool:
        """Copy while hashing; what is right gets its name."""
        blob = blob_of(file)
        staged, target = self._staged(blob), self._shelf.path(self._repo, blob)
        digest = digest_of(blob, path.stat().st_size)
        try:
            with path.open("rb") as source, staged.open("wb") as copy:
                while piece := source.read(_PIECE_BYTES):
                    halt.check()
                    digest.update(piece)
                    copy.write(piece)
                    self.done_bytes += len(piece)
                copy.flush()
                os.fchmod(copy.fileno(), self._shelf.modes.file)
                os.fsync(copy.fileno())
            if digest.hexdigest() != blob:
                actual = digest.hexdigest()
                found = Finding(kind=FindingKind.DAMAGED, path=file.path, expected=blob, actual=actual)
                self.findings.append(found)
                return False
            staged.replace(target)
        finally:
            staged.unlink(missing_ok=True)
        status = target.stat()
        known = VerifiedBlob(
            repo=self._repo, etag=blob, size=status.st_size, inode=status.st_ino, mtime_ns=status.st_mtime_ns
        )
        self._store.set_verified(known, at=self._now)
        return True

    def _staged(self, blob: BlobId) -> Path:
        return self._shelf.path(self._repo, blob).parent.parent / ".ingest" / f"{self._user}-{blob}"
