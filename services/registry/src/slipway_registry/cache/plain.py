"""Directories of real files beside the cache: somebody else's names in words, and only regular files opened."""

import errno
import os
import stat
from pathlib import Path


def shown(path: str | Path) -> str:
    r"""A path as it may go on the wire and into a message: bytes that are no UTF-8 as `\xff`."""
    return os.fsencode(path).decode(errors="backslashreplace")


def reads(path: Path, *, follow: bool = False) -> int:
    """A descriptor that reads a regular file, never waiting: a FIFO without a writer would keep the thread for ever.

    Args:
        follow: also through a link in its last part.

    Raises:
        OSError: EINVAL for anything that is not regular, beside what open(2) says.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "no regular file", str(path))
    except BaseException:
        os.close(fd)
        raise
    return fd


def kind_of(mode: int) -> str:
    """What stands in a regular file's place, from its `st_mode`."""
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFLNK: "a link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")
