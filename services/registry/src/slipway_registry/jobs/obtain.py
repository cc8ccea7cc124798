"""One blob into one repository of the cache, whatever that takes: nothing, a hash, a link, a copy, or a transfer."""

import contextlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import BlobId, Commit, RepoId

from slipway_registry.cache.blobs import BlobShelf
from slipway_registry.cache.courtesy import holding_hub_lock
from slipway_registry.cache.files import sync_file
from slipway_registry.cache.names import blob_of
from slipway_registry.hub.credentials import Credential
from slipway_registry.jobs.store import Store, VerifiedBlob
from slipway_registry.transfer.copy import CopyFetch
from slipway_registry.transfer.engine import Blob, Fetch, Transfer
from slipway_registry.transfer.errors import Mismatch, Vanished, disk_errors
from slipway_registry.transfer.frontier import Frontier
from slipway_registry.transfer.halt import Halt
from slipway_registry.transfer.hashing import OneCore, hash_file
from slipway_registry.transfer.partial import DATA, FRONTIER


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A file at a commit that a download lacks, and the credential to fetch it with."""

    repo: RepoId
    commit: Commit
    file: RepoFile
    credential: Callable[[], Credential]
    mismatches: int = 0  # how often its hash was wrong so far

    @property
    def blob(self) -> BlobId:
        """The blob's name."""
        return blob_of(self.file)


class FetchFactory(Protocol):
    """Chooses how a file is fetched."""

    def __call__(self, need: Need, /) -> Fetch:
        """A fetch that can be used once."""
        ...


class Gauge(Protocol):
    """Something that is under way and says how many bytes are done."""

    @property
    def done(self) -> int:
        """Bytes."""
        ...


@dataclass(slots=True)
class Hashed:
    """How much of a file that was there already has been hashed."""

    done: int = 0

    def add(self, count: int) -> None:
        """That many more bytes."""
        self.done += count


@dataclass(frozen=True, slots=True)
class Standing:
    """What of a blob is on the disk: verified and in place, or so many bytes of a partial."""

    verified: bool
    partial_bytes: int = 0


class Obtainer:
    """Synchronous; each call runs in a worker thread of its own."""

    def __init__(
        self,
        store: Store,
        shelf: BlobShelf,
        fetch: FetchFactory,
        *,
        core: OneCore,
        boot: uuid.UUID | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._shelf = shelf
        self._fetch = fetch
        self._core = core
        self._boot = boot
        self._wall_clock = wall_clock

    def survey(self, repo: RepoId, file: RepoFile) -> Standing:
        """Look, without touching anything."""
        if self._is_verified(repo, file):
            return Standing(verified=True)
        directory = self._shelf.partial(repo, blob_of(file))
        with contextlib.suppress(OSError), (directory / FRONTIER).open("rb") as opened:
            frontier = Frontier.load(opened.fileno(), file.size_bytes)
            if frontier and (directory / DATA).stat().st_size == file.size_bytes:
                return Standing(verified=False, partial_bytes=frontier.done)
        return Standing(verified=False)

    def obtain(self, need: Need, halt: Halt, watch: Callable[[Gauge], None], fetched: Callable[[], None]) -> None:
        """Return when the blob is verified and in place.

        Args:
            watch: given what measures the work as soon as it begins (and again when it changes).
            fetched: called when all bytes are there and only hashing remains.

        Raises:
            See `transfer.errors`.
        """
        if self._is_verified(need.repo, need.file):
            return
        with disk_errors(self._shelf.hub):
            self._shelf.prepare(need.repo)
        lock = RepoPaths(self._shelf.hub, need.repo).lock(need.blob)
        with holding_hub_lock(lock, self._shelf.modes, halt):
            if need.mismatches == 0 and self._verify_present(need, halt, watch, fetched):
                return
            copy = self._from_elsewhere(need)
            if copy or not self._is_verified(need.repo, need.file):
                self._transfer(need, copy or self._fetch(need), halt, watch, fetched)

    def _transfer(
        self, need: Need, fetch: Fetch, halt: Halt, watch: Callable[[Gauge], None], fetched: Callable[[], None]
    ) -> None:
        repo, file = need.repo, need.file
        transfer = Transfer(
            Blob(etag=file.blob_id, size=file.size_bytes, label=f"{repo}/{file.path}"),
            self._shelf.partial(repo, need.blob),
            fetch,
            core=self._core,
            mode=self._shelf.modes.file,
            fetched=fetched,
            boot=self._boot,
        )
        watch(transfer)
        transfer.run(halt)
        with disk_errors(file.path):
            try:
                path = self._shelf.place(repo, need.blob)
                self._remember(repo, file, path, transfer.crcs)
            except FileNotFoundError as error:
                raise Vanished(file.path) from error

    def _is_verified(self, repo: RepoId, file: RepoFile) -> bool:
        path = self._shelf.path(repo, blob_of(file))
        return any(_unchanged(path, blob) for blob in self._store.verified(file.blob_id) if blob.repo == repo)

    def _verify_present(
        self, need: Need, halt: Halt, watch: Callable[[Gauge], None], fetched: Callable[[], None]
    ) -> bool:
        """A blob that somebody else put there is hashed before it is trusted; False if there is none.

        Raises:
            Mismatch: it is not what its name says, and will be replaced.
        """
        file, path = need.file, self._shelf.path(need.repo, need.blob)
        hashed = Hashed()
        try:
            if path.stat().st_size != file.size_bytes:
                return False
            watch(hashed)
            fetched()
            digest = hash_file(path, file.blob_id, self._core, halt, hashed.add)
            if digest == file.blob_id:
                sync_file(path)
                self._remember(need.repo, file, path, None)
        except OSError:
            return False
        if digest != file.blob_id:
            raise Mismatch(f"{need.repo}/{file.path} in the cache", file.blob_id, digest)
        return True

    def _from_elsewhere(self, need: Need) -> Fetch | None:
        """Link the blob from another repository that has it; a copying fetch where links do not work.

        What is here already was found wrong, or cannot be read: it is no better under another repository's name.
        """
        repo, file = need.repo, need.file
        present = self._shelf.path(repo, need.blob)
        for blob in self._store.verified(file.blob_id):
            path = self._shelf.path(blob.repo, need.blob)
            if blob.repo == repo or not _unchanged(path, blob) or (present.exists() and present.samefile(path)):
                continue
            if not self._shelf.adopt(repo, need.blob, path):
                return CopyFetch(path)
            try:
                self._remember(repo, file, present, blob.block_crcs)
            except FileNotFoundError as error:
                raise Vanished(file.path) from error
            return None
        return None

    def _remember(self, repo: RepoId, file: RepoFile, path: Path, crcs: bytes | None) -> None:
        stat = path.stat()
        blob = VerifiedBlob(
            repo=repo,
            etag=file.blob_id,
            size=file.size_bytes,
            inode=stat.st_ino,
            mtime_ns=stat.st_mtime_ns,
            block_crcs=crcs,
        )
        self._store.set_verified(blob, at=self._wall_clock())


def _unchanged(path: Path, blob: VerifiedBlob) -> bool:
    try:
        stat = path.stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_ino, stat.st_mtime_ns) == (blob.size, blob.inode, blob.mtime_ns)
