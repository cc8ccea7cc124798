"""A directory of real files into the cache, each by its hash: what the commit's listing says is taken, no more."""

import contextlib
import os
import secrets
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from slipway_service.fault import Fault, Reason
from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import Commit, RepoId, Revision

from slipway_registry.cache.blobs import BlobShelf
from slipway_registry.cache.files import sync_directory
from slipway_registry.cache.names import blob_of
from slipway_registry.cache.on_hand import OnHand
from slipway_registry.cache.plain import kind_of, reads, shown
from slipway_registry.cache.publish import Publisher
from slipway_registry.cache.verify import Finding, FindingKind
from slipway_registry.jobs.store import Store
from slipway_registry.transfer.budget import Claim, DiskBudget
from slipway_registry.transfer.errors import DiskFull, disk_errors
from slipway_registry.transfer.halt import Halt
from slipway_registry.transfer.hashing import digest_of

_PIECE_BYTES = 1 << 20

_DRAFT = "import-"
"""How unfinished files of imports begin."""

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
        self._on_hand = OnHand(shelf, store, now=now)
        self._budget = budget
        self._repo = repo
        self._commit = commit
        self._revision = revision
        self._listing: dict[str, RepoFile] = {file.path: file for file in listing}
        self._folders = {str(folder) for file in listing for folder in PurePosixPath(file.path).parents}
        self._directory = directory
        self._user = f"{_DRAFT}{secrets.token_hex(8)}"
        self.findings: list[Finding] = []
        self.done_bytes = 0
        self.total_bytes = 0

    def run(self, halt: Halt) -> None:
        """Return when what is right is published. What the cache has already stays as it is there.

        Raises:
            Fault: PATH_NOT_ALLOWED, the directory is not there, none, or closed to us; HASH_MISMATCH, no file of it is
                one of the commit; DISK_FULL, DISK_FAULT, of the cache. Halted.
        """
        try:
            with disk_errors(self._shelf.hub):
                self._take(halt)
        except DiskFull as full:
            raise full.fault("Nothing was published.") from full
        finally:
            self._budget.release(self._user)

    def _take(self, halt: Halt) -> None:
        """Copy first, then give what is right its name: whoever stops it meanwhile leaves nothing behind."""
        found = self._files()
        self.total_bytes = sum(self._listing[name].size_bytes for name in found)
        paths = self._shelf.prepare(self._repo)
        there = {name for name in found if self._is_there(self._listing[name], halt)}
        drafts = {name: paths.ingest / f"{self._user}-{number}" for number, name in enumerate(found)}
        try:
            linked = {name for name in found if name not in there and self._link(self._listing[name], drafts[name])}
            missing = [name for name in found if name not in there | linked]
            self._claim({name: drafts[name] for name in missing})
            copied = {name for name in missing if self._copy(self._listing[name], found[name], drafts[name], halt)}
            taken = [name for name in found if name in there | linked | copied]
            if not taken:
                text = f"No file of {shown(self._directory)} is one of {self._repo} at {self._commit}."
                raise Fault(Reason.HASH_MISMATCH, text, facts={"findings": str(len(self.findings))})
            for name in linked | copied:
                drafts[name].replace(self._shelf.path(self._repo, blob_of(self._listing[name])))
                self._on_hand.remember(self._repo, self._listing[name])
        finally:
            for draft in drafts.values():
                draft.unlink(missing_ok=True)
        sync_directory(paths.blobs)
        self._publisher.publish(self._repo, self._commit, self._listing.values(), taken, self._revision)

    def _files(self) -> dict[str, Path]:
        """Files that the commit has too and that may be taken, by path; the others are findings."""
        try:
            os.listdir(self._directory)
        except OSError as error:
            text = f"{shown(self._directory)} cannot be taken in: {error.strerror}."
            raise Fault(Reason.PATH_NOT_ALLOWED, text) from None
        found = {}
        for parent, folders, names in os.walk(self._directory, onerror=self._unread):
            entered = [name for name in folders if name not in _ASIDE and self._is_entered(parent, name)]
            others = set(folders) - _ASIDE - set(entered)
            folders[:] = sorted(entered)
            for name in sorted({*names, *others}):
                within = self._within(parent, name)
                if within not in self._listing:
                    self.findings.append(self._stranger(within))
                elif path := self._takeable(self._listing[within], Path(parent, name)):
                    found[within] = path
        return found

    def _is_entered(self, parent: str, name: str) -> bool:
        return not Path(parent, name).is_symlink() and self._within(parent, name) not in self._listing

    def _stranger(self, within: str) -> Finding:
        """Something that is no file of the commit; it matters if files of the commit were to be found below."""
        if within in self._folders:
            detail = "files of the commit would lie in it, and it is no directory itself"
            return Finding(kind=FindingKind.UNREADABLE, path=shown(within), expected="", detail=detail)
        detail = "the commit has no such file"
        return Finding(kind=FindingKind.MISSING, path=shown(within), expected="", detail=detail)

    def _within(self, parent: str, name: str) -> str:
        return Path(parent, name).relative_to(self._directory).as_posix()

    def _unread(self, error: OSError) -> None:
        within = shown(os.path.relpath(error.filename, self._directory))
        self.findings.append(
            Finding(kind=FindingKind.UNREADABLE, path=within, expected="", detail=error.strerror or "unreadable")
        )

    def _takeable(self, file: RepoFile, path: Path) -> Path | None:
        """Where the file itself is; None, and a finding, for one outside the directory, not regular or not as long."""
        real = Path(os.path.realpath(path))
        try:
            status = real.lstat()
        except OSError as error:
            self._left(file, FindingKind.UNREADABLE, f"{'a link: ' * path.is_symlink()}{error.strerror}")
            return None
        if not real.is_relative_to(self._directory):
            self._left(file, FindingKind.UNREADABLE, "a link to elsewhere")
        elif not stat.S_ISREG(status.st_mode):
            self._left(file, FindingKind.UNREADABLE, f"{kind_of(status.st_mode)}, no regular file")
        elif status.st_size != file.size_bytes:
            self._left(file, FindingKind.DAMAGED, f"it has {status.st_size} bytes instead of {file.size_bytes}")
        else:
            return real
        return None

    def _left(self, file: RepoFile, kind: FindingKind, detail: str, *, actual: str = "") -> None:
        """Name a file of the commit that is not taken."""
        blob = blob_of(file)
        self.findings.append(Finding(kind=kind, path=file.path, expected=blob, actual=actual, detail=detail))

    def _is_there(self, file: RepoFile, halt: Halt) -> bool:
        halt.check()
        has = self._on_hand.has(self._repo, file, halt)
        self.done_bytes += file.size_bytes * has
        return has

    def _link(self, file: RepoFile, draft: Path) -> bool:
        linked = self._on_hand.link(self._repo, file, draft)
        self.done_bytes += file.size_bytes * linked
        return linked

    def _claim(self, drafts: dict[str, Path]) -> None:
        """Room for each copy: two files with one content are two until both are hashed."""
        wanted = {f"{self._user}/{name}": Claim(self._listing[name].size_bytes, it) for name, it in drafts.items()}
        if shortage := self._budget.claim(self._user, wanted):
            raise shortage.fault()

    def _copy(self, file: RepoFile, path: Path, draft: Path, halt: Halt) -> bool:
        """Copy while hashing; whether it is what the commit has. What cannot be read is a finding."""
        blob = blob_of(file)
        digest = digest_of(blob, file.size_bytes)
        left = file.size_bytes
        try:
            source = reads(path)
        except OSError as error:
            self._left(file, FindingKind.UNREADABLE, error.strerror or "unreadable")
            return False
        with open(source, "rb", buffering=0) as opened, draft.open("xb") as copy:
            while True:
                halt.check()
                try:
                    piece = opened.read(min(_PIECE_BYTES, left + 1))
                except OSError as error:
                    self._left(file, FindingKind.UNREADABLE, error.strerror or "unreadable")
                    return False
                if not piece:
                    break
                left -= len(piece)
                if left < 0:
                    self._left(file, FindingKind.DAMAGED, "it grew while it was read")
                    return False
                digest.update(piece)
                copy.write(piece)
                self.done_bytes += len(piece)
            copy.flush()
            os.fchmod(copy.fileno(), self._shelf.modes.file)
            os.fsync(copy.fileno())
        if (actual := digest.hexdigest()) != blob:
            self._left(file, FindingKind.DAMAGED, "", actual=actual)
        return actual == blob


def clear_interrupted(shelf: BlobShelf, repos: Iterable[RepoId]) -> None:
    """Remove what imports left that were killed; they can never be taken up again. Call it while there are none."""
    for repo in repos:
        for draft in RepoPaths(shelf.hub, repo).ingest.glob(f"{_DRAFT}*"):
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
