"""Removing a snapshot, or some of its files, in an order that is right at every crash.

Refs first (a ref to nothing hides the whole repository from `hf`), then the snapshot in one rename, then the blobs
that nothing links. Everything goes to the trash before it goes for good; whatever is in doubt stays.
"""

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.names import Commit

from slipway_registry.cache import trash
from slipway_registry.cache.files import remove_tree, replace_file, sync_directory
from slipway_registry.cache.layout import Modes
from slipway_registry.cache.scan import RepoContents, read_repo
from slipway_registry.cache.staged import SNAPSHOT, staging_path
from slipway_registry.cache.weigh import Loss, Scales, names_lost
from slipway_registry.transfer.errors import FULL


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What goes.

    Attributes:
        whole: the snapshot itself; else only files of it.
        paths: of files, in order.
        loss: blobs and names.
        freed_bytes: what comes free when the trash is emptied.
    """

    commit: Commit
    whole: bool
    paths: tuple[str, ...]
    loss: Loss
    freed_bytes: int


def plan_removal(
    contents: RepoContents, commit: Commit, paths: Collection[str] | None, wanted: Collection[str]
) -> Removal:
    """What removing a snapshot, or these files of it, means. When no file would be left, the snapshot goes.

    Args:
        contents: the repository as it is at this moment.
        wanted: blobs that downloads under way count on.
    """
    there = {link.path for link in contents.snapshots[commit].links}
    taken = there if paths is None else there & set(paths)
    whole = paths is None or taken == there
    loss = names_lost(contents, commit, None if whole else taken, wanted=wanted)
    freed = Scales([contents]).lose(loss.names)
    return Removal(commit=commit, whole=whole, paths=tuple(sorted(taken)), loss=loss, freed_bytes=freed)


def remove(paths: RepoPaths, removal: Removal, modes: Modes, now: float, *, for_good: bool) -> Removal:
    """Do it. The caller holds the repository's lock.

    Args:
        for_good: the trash is emptied at once; on a disk without room for a bin the trash is left out then.

    Returns:
        What was removed: less than planned where another program linked a blob at this very moment.

    Raises:
        OSError: the file system refuses; what has not been moved stays, and a snapshot that stays keeps its refs.
    """
    try:
        bin_ = trash.new_bin(paths, modes, now)
    except OSError as error:
        if not for_good or error.errno not in FULL:
            raise
        return _remove_without_trash(paths, removal, modes)
    if removal.whole:
        with _without_refs(paths, removal.commit, modes):
            trash.discard(paths.snapshot(removal.commit), bin_ / "links" / "snapshot")
    else:
        for path in removal.paths:
            trash.discard(paths.snapshot(removal.commit) / path, bin_ / "links" / path)
        _remove_empty_folders(paths.snapshot(removal.commit))
    for blob in sorted(removal.loss.blobs):
        trash.discard(paths.blobs / blob, bin_ / "blobs" / blob)
    restored = trash.restore_linked(paths, bin_)
    if removal.whole:
        paths.tree(removal.commit).unlink(missing_ok=True)
        remove_tree(paths.no_exist(removal.commit))
    if not restored:
        return removal
    contents = read_repo(paths)
    kept = sum(contents.blobs[blob].size for blob in restored if blob in contents.blobs)
    return Removal(
        commit=removal.commit,
        whole=removal.whole,
        paths=removal.paths,
        loss=removal.loss,
        freed_bytes=max(0, removal.freed_bytes - kept),
    )


def _remove_without_trash(paths: RepoPaths, removal: Removal, modes: Modes) -> Removal:
    """In the same order; what is renamed and not removed yet when we are killed, a start removes."""
    snapshot = paths.snapshot(removal.commit)
    if removal.whole:
        aside = staging_path(paths, SNAPSHOT)
        with _without_refs(paths, removal.commit, modes):
            snapshot.rename(aside)
        sync_directory(paths.snapshots)
        remove_tree(aside)
        paths.tree(removal.commit).unlink(missing_ok=True)
        remove_tree(paths.no_exist(removal.commit))
    else:
        for path in removal.paths:
            (snapshot / path).unlink(missing_ok=True)
        _remove_empty_folders(snapshot)
    linked = {link.blob for it in read_repo(paths).snapshots.values() for link in it.links}
    for blob in removal.loss.blobs - linked:
        (paths.blobs / blob).unlink(missing_ok=True)
    sync_directory(paths.blobs)
    return removal


@contextlib.contextmanager
def _without_refs(paths: RepoPaths, commit: Commit, modes: Modes) -> Iterator[None]:
    """Remove every ref that names the commit, ours too; they come back if the file system refuses the body."""
    removed: dict[Path, bytes] = {}
    try:
        for path in sorted(paths.refs.rglob("*")) if paths.refs.is_dir() else ():
            if path.is_file() and (content := path.read_bytes()).strip() == commit.encode():
                path.unlink()
                removed[path] = content
                sync_directory(path.parent)
        yield
    except OSError:
        for path, content in removed.items():
            with contextlib.suppress(OSError):
                replace_file(path, content, staging=paths.ingest, modes=modes)
        raise


def _remove_empty_folders(snapshot: Path) -> None:
    for folder in sorted(snapshot.rglob("*"), reverse=True):
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()
