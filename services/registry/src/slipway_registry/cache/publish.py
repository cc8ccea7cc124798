"""Makes verified files visible, in an order that is right at every crash: listing, snapshot, refs (blobs came before).

Each step is atomic and idempotent, and on the disk before the next begins. Whoever reads the cache sees a snapshot
whole or not at all, and never a ref to one that is not there (that would hide the whole repository from `hf`).
"""

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from slipway_service.weights.cache_paths import RepoPaths, link_target
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import Commit, FilePath, RepoId, Revision

from slipway_registry.cache.blobs import BlobShelf
from slipway_registry.cache.exclusion import RepoLocks
from slipway_registry.cache.files import make_directory, remove_tree, replace_file, sync_directory
from slipway_registry.cache.names import blob_of, check_tree
from slipway_registry.cache.staged import LINK, SNAPSHOT, staging_path
from slipway_registry.cache.trees import tree_json


class Publisher:
    """Writes snapshots of one cache. Safe for many threads.

    Args:
        locks: keep publishing and deleting of one repository apart.
        symlinks: False where the file system or the configuration has none: snapshots then hold hard links of blobs.
    """

    def __init__(self, shelf: BlobShelf, locks: RepoLocks, *, symlinks: bool = True) -> None:
        self._shelf = shelf
        self._modes = shelf.modes
        self._locks = locks
        self._symlinks = symlinks

    def publish(
        self, repo: RepoId, commit: Commit, listing: Iterable[RepoFile], selected: Iterable[str], *revisions: Revision
    ) -> None:
        """Make the selected files of a commit visible; their blobs are in place and verified.

        Args:
            listing: every file of the commit, selected or not.
            selected: paths of those to link.
            revisions: what was asked for; each branch, tag or pull request becomes a ref.

        Raises:
            Fault: HUB_ANSWER_UNSAFE, before anything is written.
            OSError: FileNotFoundError if a blob has been taken away meanwhile.
        """
        files = {file.path: file for file in listing}
        check_tree(files.values())
        chosen = [files[FilePath(path)] for path in selected]
        with self._locks.holding(repo):
            paths = self._shelf.prepare(repo)
            self._write(paths.tree(commit), tree_json(files.values()), paths)
            self._link(paths, commit, chosen)
            self._write(paths.keep_ref(commit), commit.encode(), paths)
            for revision in revisions:
                # `dev/x` where there is a ref `dev`: git has the two one after the other only. What is there stays; the
                # snapshot is found by its commit.
                with contextlib.suppress(NotADirectoryError, IsADirectoryError):
                    if revision.names_ref(commit):
                        self._write(paths.ref(revision), commit.encode(), paths)

    def _link(self, paths: RepoPaths, commit: Commit, files: Iterable[RepoFile]) -> None:
        snapshot = paths.snapshot(commit)
        if snapshot.is_dir() or not self._build(paths, snapshot, files):
            for file in files:
                if not self._is_linked(paths, snapshot / file.path, file):
                    self._add_link(paths, snapshot / file.path, file)

    def _build(self, paths: RepoPaths, snapshot: Path, files: Iterable[RepoFile]) -> bool:
        """A new snapshot, built aside and renamed; False if another program made one meanwhile."""
        farm = staging_path(paths, SNAPSHOT)
        try:
            make_directory(farm, self._modes)
            for file in files:
                make_directory((farm / file.path).parent, self._modes)
                self._make_link(paths, farm / file.path, file)
            for directory, _, _ in os.walk(farm, topdown=False):
                sync_directory(Path(directory))
            farm.rename(snapshot)
        except OSError:
            remove_tree(farm)
            if not snapshot.is_dir():
                raise
            return False
        sync_directory(paths.snapshots)
        return True

    def _add_link(self, paths: RepoPaths, at: Path, file: RepoFile) -> None:
        staged = staging_path(paths, LINK)
        self._make_link(paths, staged, file)
        make_directory(at.parent, self._modes)
        staged.replace(at)
        staged.unlink(missing_ok=True)  # rename(2) between two names of one file leaves both
        sync_directory(at.parent)

    def _make_link(self, paths: RepoPaths, at: Path, file: RepoFile) -> None:
        blob = paths.blob(blob_of(file))
        blob.stat()  # FileNotFoundError if it is gone, or is a link to what is gone
        if self._symlinks:
            at.symlink_to(link_target(file.path, blob_of(file)))
            return
        try:
            os.link(blob.resolve(), at)
        except OSError:  # no hard links either
            shutil.copyfile(blob, at)
            at.chmod(self._modes.file)
            with at.open("rb") as copy:
                os.fsync(copy.fileno())

    def _is_linked(self, paths: RepoPaths, at: Path, file: RepoFile) -> bool:
        try:
            if self._symlinks and str(at.readlink()) != link_target(file.path, blob_of(file)):
                return False
            return at.samefile(paths.blob(blob_of(file)))
        except OSError:
            return False

    def _write(self, target: Path, content: bytes, paths: RepoPaths) -> None:
        """A small file, unless it is there already as it should be."""
        with contextlib.suppress(OSError):
            if target.read_bytes() == content and target.stat().st_mode & 0o444 == self._modes.file & 0o444:
                return
        replace_file(target, content, staging=paths.ingest, modes=self._modes)
