"""Durable file operations: each ends with the directory entry on the disk."""

import contextlib
import itertools
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from slipway_registry.cache.layout import Modes


def make_directory(path: Path, modes: Modes) -> None:
    """Create a directory and its parents with our mode; those that exist keep theirs."""
    if path.is_dir():
        return
    make_directory(path.parent, modes)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
        path.chmod(modes.directory)
        sync_directory(path.parent)


def open_lock(path: Path, modes: Modes) -> int:
    """A lock file's descriptor; created with our mode, since the group must be able to lock it whatever the umask is.

    Raises:
        OSError.
    """
    make_directory(path.parent, modes)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, os.O_RDWR | os.O_CREAT, modes.file)
    os.fchmod(fd, modes.file)
    return fd


def sync_directory(path: Path) -> None:
    """fsync a directory, which is what makes a rename or a new name in it survive a crash."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """fsync a file that somebody else wrote: what was read of it may be in the page cache only."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, content: bytes, *, staging: Path, modes: Modes) -> None:
    """Write a small file whole or not at all: staged (same file system), synced, renamed over `path`."""
    make_directory(staging, modes)
    make_directory(path.parent, modes)
    staged = staging / f"{path.name[:64]}.{secrets.token_hex(4)}"
    fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(fd, modes.file)
            os.fsync(fd)
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def remove_tree(path: Path) -> None:
    """Remove what there is below `path`; what is gone already is no error. Links are removed, never followed."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(path):
            entry = path / name
            if entry.is_dir() and not entry.is_symlink():
                remove_tree(entry)
            else:
                entry.unlink(missing_ok=True)
        path.rmdir()


def statuses_below(path: Path) -> Iterator[os.stat_result]:
    """`lstat` of what there is at `path` and below; what goes meanwhile, or cannot be read, is left out."""
    for parent, folders, files in itertools.chain([("", [], [str(path)])], os.walk(path)):
        for name in (*folders, *files):
            try:
                status = os.lstat(os.path.join(parent, name))
            except OSError:
                continue
            yield status
