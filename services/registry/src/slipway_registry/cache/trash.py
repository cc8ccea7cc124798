"""Deleted and not gone yet: readers on other hosts keep the files that they have open until a grace is over.

A bin is `.ingest/trash/<when, in ms>-<random>/` with `links/` and `blobs/` in it: on the same file system, ignored by
cache scans, and gone with the repository.
"""

import contextlib
import os
import secrets
from collections.abc import Collection
from pathlib import Path

from slipway_service.weights.cache_paths import RepoPaths

from slipway_registry.cache.files import make_directory, remove_tree, statuses_below, sync_directory
from slipway_registry.cache.layout import Modes
from slipway_registry.cache.scan import read_repo
from slipway_registry.cache.weigh import freed

NAME = "trash"


def new_bin(paths: RepoPaths, modes: Modes, now: float) -> Path:
    """A bin for what is deleted now (seconds since 1970)."""
    made = paths.ingest / NAME / f"{int(now * 1000)}-{secrets.token_hex(4)}"
    for part in ("links", "blobs"):
        make_directory(made / part, modes)
    return made


def discard(path: Path, into: Path) -> bool:
    """Move a file or directory into a bin; False if it is not there."""
    into.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.rename(into)
    except FileNotFoundError:
        return False
    sync_directory(path.parent)
    return True


def restore_linked(paths: RepoPaths, bin_: Path) -> set[str]:
    """Give blobs of a bin back that a snapshot links: another program linked them meanwhile. Returns their names.

    Raises:
        OSError: the repository cannot be read; nothing may be unlinked then.
    """
    linked = {link.blob for it in read_repo(paths).snapshots.values() for link in it.links if link.inode is None}
    restored = set()
    for name in _listed(bin_ / "blobs"):
        if name in linked and not os.path.lexists(paths.blobs / name):
            (bin_ / "blobs" / name).rename(paths.blobs / name)
            restored.add(name)
    if restored:
        sync_directory(paths.blobs)
    return restored


def empty(paths: RepoPaths, before: float, wanted: Collection[str] = ()) -> bool:
    """Unlink what was deleted until then (seconds since 1970); whether bins are left.

    A deletion that was killed after its links had gone is finished: contents that only they led to go too.

    Args:
        wanted: blobs that stay whatever links them.
    """
    left = False
    for name in _listed(paths.ingest / NAME):
        stamp = name.partition("-")[0]
        if not stamp.isdecimal() or int(stamp) > before * 1000:
            left = True
            continue
        bin_ = paths.ingest / NAME / name
        for blob in _left_behind(paths, bin_) - set(wanted):
            discard(paths.blobs / blob, bin_ / "blobs" / blob)
        restore_linked(paths, bin_)
        remove_tree(bin_)
    return left


def _left_behind(paths: RepoPaths, bin_: Path) -> set[str]:
    """Blobs that the links of a bin led to, or the real files in it are, and that nothing links any more."""
    names, inodes = set(), set()
    for parent, _, files in os.walk(bin_ / "links"):
        for file in files:
            path = os.path.join(parent, file)
            if os.path.islink(path):
                names.add(os.path.basename(os.readlink(path)))
            else:
                status = os.lstat(path)
                inodes.add((status.st_dev, status.st_ino))
    if not names and not inodes:
        return set()
    contents = read_repo(paths)
    linked = {link.blob for it in contents.snapshots.values() for link in it.links}
    found = {name for name, blob in contents.blobs.items() if name in names or blob.inode in inodes}
    return found - linked


def trash_bytes(paths: RepoPaths) -> int:
    """Bytes that come free when the trash is emptied; contents that have names elsewhere are not among them."""
    return sum(it.st_size for it in freed(statuses_below(paths.ingest / NAME)))


def remove_if_empty(paths: RepoPaths) -> None:
    """Take the repository's folder away when it has no snapshot and no content; what else is in it stays.

    Listings that `hf cache rm` left are of no use by then. The folder goes whole or not at all: without `snapshots/`
    cache scans would call it corrupt.
    """
    if _listed(paths.blobs) or _listed(paths.snapshots):
        return
    for leftover in (paths.trees, paths.root / ".no_exist"):
        remove_tree(leftover)
    if any(files for _, _, files in os.walk(paths.root)):
        return
    for parent, _, _ in os.walk(paths.root, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(parent)


def _listed(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
