"""Durable file operations: each ends with the directory entry on the disk."""

import contextlib
import os
import secrets
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


def sync_directory(path: Path) -> None:
    """fsync a directory, which is what makes a rename or a new name in it survive a crash."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
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
