"""The state directory: local, and one process's at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = "registry.lock"

# SQLite's WAL needs shared memory between the processes that open it, and locks that work (sqlite.org/wal.html, 2.).
_REMOTE = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "ceph",
    "lustre",
    "fuse.sshfs",
    "glusterfs",
    "fuse.glusterfs",
    "beegfs",
}


class DirectoryTakenError(Exception):
    """The directory cannot be ours; the message says why and what to do."""


@contextmanager
def locked_directory(directory: Path) -> Iterator[None]:
    """Hold the state directory, which is created if it is not there.

    Raises:
        DirectoryTakenError: another process holds it, or it is on a network file system.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if (kind := file_system(directory)) in _REMOTE:
        raise DirectoryTakenError(
            f"{directory} is on {kind}: give a state directory on a local disk (the cache may be remote)"
        )
    fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
            raise DirectoryTakenError(
                f"{directory} is in use by another registry (process {holder or 'unknown'})"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def is_remote(path: Path) -> bool:
    """Whether a network file system holds `path`."""
    return file_system(path) in _REMOTE


def file_system(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system that holds `path`, as the kernel names it; "" if that cannot be told."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    real = str(path.resolve())
    best, kind = -1, ""
    for line in lines:  # proc(5): … mount point (5th) … " - " type source options
        left, _, right = line.partition(" - ")
        point = left.split()[4].encode().decode("unicode_escape")
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= best:
            best, kind = len(point), right.split()[0]
    return kind
