"""Blobs of a cache: giving verified bytes their name."""

import os
from pathlib import Path

from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.names import BlobId, RepoId

from slipway_registry.cache.files import make_directory, remove_tree, sync_directory
from slipway_registry.cache.layout import Modes, partial_directory
from slipway_registry.cache.staged import LINK, staging_path
from slipway_registry.transfer.errors import check_cache
from slipway_registry.transfer.partial import DATA


class BlobShelf:
    """Blobs of the hub cache at `hub`. Safe for many threads, which do not work on the same blob."""

    def __init__(self, hub: Path, modes: Modes) -> None:
        self.hub = hub
        self.modes = modes

    def prepare(self, repo: RepoId) -> RepoPaths:
        """Create the repository's folder, `snapshots/` first: without it cache scans call the repository corrupt.

        Raises:
            Fault: DISK_FAULT, the cache has gone; so does `place`.
        """
        check_cache(self.hub)
        paths = RepoPaths(self.hub, repo)
        for directory in (paths.snapshots, paths.blobs, paths.ingest):
            make_directory(directory, self.modes)
        return paths

    def path(self, repo: RepoId, blob: BlobId) -> Path:
        """Where the blob is, or would be."""
        return RepoPaths(self.hub, repo).blob(blob)

    def partial(self, repo: RepoId, blob: BlobId) -> Path:
        """The directory of the blob on its way."""
        return partial_directory(RepoPaths(self.hub, repo), blob)

    def place(self, repo: RepoId, blob: BlobId) -> Path:
        """Name a verified and synced partial; this replaces what had the name, even a link into hf's shared store.

        Raises:
            FileNotFoundError: the partial was taken away.
        """
        check_cache(self.hub)
        target = self.path(repo, blob)
        make_directory(target.parent, self.modes)
        (self.partial(repo, blob) / DATA).replace(target)
        sync_directory(target.parent)
        self.discard(repo, blob)
        return target

    def adopt(self, repo: RepoId, blob: BlobId, source: Path) -> bool:
        """Name a verified blob of another repository here too; False where hard links do not work."""
        paths = self.prepare(repo)
        staged = staging_path(paths, LINK)
        try:
            os.link(source.resolve(strict=True), staged)
        except OSError:
            return False
        staged.replace(paths.blob(blob))
        staged.unlink(missing_ok=True)  # rename(2) between two names of one file leaves both
        sync_directory(paths.blobs)
        return True

    def discard(self, repo: RepoId, blob: BlobId) -> None:
        """Delete what a transfer left."""
        remove_tree(self.partial(repo, blob))
