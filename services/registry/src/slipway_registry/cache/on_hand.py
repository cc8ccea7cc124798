"""What of a file's content the cache has already, so that nobody has to bring it."""

import contextlib
import os
from pathlib import Path

from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import RepoId

from slipway_registry.cache.blobs import BlobShelf
from slipway_registry.cache.files import sync_file
from slipway_registry.cache.names import blob_of
from slipway_registry.jobs.store import Store, VerifiedBlob
from slipway_registry.transfer.halt import Halt
from slipway_registry.transfer.hashing import OneCore, hash_file


class OnHand:
    """Looks for contents by the records, and hashes what they do not know. Synchronous.

    Args:
        now: when it looks, seconds since 1970.
    """

    def __init__(self, shelf: BlobShelf, store: Store, *, now: float) -> None:
        self._shelf = shelf
        self._store = store
        self._now = now
        self._core = OneCore()

    def has(self, repo: RepoId, file: RepoFile, halt: Halt) -> bool:
        """Whether the repository has the blob, and it is right: verified and unchanged since, or hashed now.

        Raises:
            Halted. Fault: the database cannot be written.
        """
        path = self._shelf.path(repo, blob_of(file))
        if any(blob.repo == repo and _unchanged(path, blob) for blob in self._store.verified(file.blob_id)):
            return True
        with contextlib.suppress(OSError):
            if path.is_file() and path.stat().st_size == file.size_bytes:
                digest = hash_file(path, file.blob_id, self._core, halt, lambda _: None)
                if digest == file.blob_id:
                    sync_file(path)
                    self.remember(repo, file)
                return digest == file.blob_id
        return False

    def link(self, repo: RepoId, file: RepoFile, draft: Path) -> bool:
        """Make `draft` a hard link of another repository's verified blob; False where there is none, or no links."""
        for blob in self._store.verified(file.blob_id):
            path = self._shelf.path(blob.repo, blob_of(file))
            if blob.repo != repo and _unchanged(path, blob):
                with contextlib.suppress(OSError):
                    os.link(path.resolve(strict=True), draft)
                    return True
        return False

    def remember(self, repo: RepoId, file: RepoFile) -> None:
        """The repository's blob has just been hashed, or is a link of one that was.

        Raises:
            OSError. Fault: the database cannot be written.
        """
        status = self._shelf.path(repo, blob_of(file)).stat()
        same = (it for it in self._store.verified(file.blob_id) if (it.inode, it.mtime_ns) == _seen(status))
        blob = VerifiedBlob(
            repo=repo,
            etag=file.blob_id,
            size=status.st_size,
            inode=status.st_ino,
            mtime_ns=status.st_mtime_ns,
            block_crcs=next((it.block_crcs for it in same if it.block_crcs), None),
        )
        self._store.set_verified(blob, at=self._now)


def _seen(status: os.stat_result) -> tuple[int, int]:
    return status.st_ino, status.st_mtime_ns


def _unchanged(path: Path, blob: VerifiedBlob) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return (status.st_size, *_seen(status)) == (blob.size, blob.inode, blob.mtime_ns)
