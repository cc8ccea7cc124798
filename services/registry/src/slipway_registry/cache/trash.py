"""Deleted and not gone yet: readers on other hosts keep the files that they have open until a grace is over.

A bin is `.ingest/trash/<when, in ms>-<random>/` with `links/` and `blobs/` in it: on the same file system, ignored by
cache scans, and gone with the repository.
"""

import contextlib
import os
import secrets
import stat
from collections import Counter
from pathlib import Path

from slipway_service.weights.cache_paths import RepoPaths

from slipway_registry.cache.files import make_directory, remove_tree, sync_directory
from slipway_registry.cache.layout import Modes
from slipway_registry.cache.scan import read_repo

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


def empty(paths: RepoPaths, before: float) -> bool:
    """Unlink what was deleted until then (seconds since 1970); whether bins are left."""
    left = False
    for name in _listed(paths.ingest / NAME):
        stamp = name.partition("-")[0]
        if not stamp.isdecimal() or int(stamp) > before * 1000:
            left = True
            continue
        restore_linked(paths, paths.ingest / NAME / name)
        remove_tree(paths.ingest / NAME / name)
    return left


def trash_bytes(paths: RepoPaths) -> int:
    """Bytes that come free when the trash is emptied; contents that have names elsewhere are not among them."""
    names: Counter[tuple[int, int, int]] = Counter()
    sizes = {}
    for parent, _, files in os.walk(paths.ingest / NAME):
        for file in files:
            with contextlib.suppress(OSError):
                status = os.lstat(os.path.join(parent, file))
                if stat.S_ISLNK(status.st_mode):
                    continue
                key = (status.st_dev, status.st_ino, status.st_nlink)
                names[key] += 1
                sizes[key] = status.st_size
    return sum(size for key, size in sizes.items() if names[key] == key[2])


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
