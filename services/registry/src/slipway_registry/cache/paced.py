"""Hashing in the background: no faster than is allowed, past the page cache, and after everybody else."""

import ctypes
import errno
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from slipway_registry.transfer.halt import Halt
from slipway_registry.transfer.hashing import OneCore, digest_of

PIECE_BYTES = 1 << 20
"""Read at once, and the longest that is read ahead of the pace."""

_LOWEST = 19
"""Of the nice values."""

# linux/ioprio.h: one thread, the class that gets the disk when nobody else wants it.
_IOPRIO_WHO_PROCESS, _IOPRIO_IDLE = 1, 3 << 13
_SYS_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}


class PacedHash:
    """Hashes as `hash_file` does, at `rate` bytes a second at most. For one thread at a time.

    Read from the disk itself where the file system allows that (O_DIRECT): what the disk holds is the question, and
    the models that others read stay in the page cache.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._due = clock()

    def __call__(self, path: Path, etag: str, core: OneCore, halt: Halt, add: Callable[[int], None]) -> str:
        """The hex digest of the file's content.

        Raises:
            OSError, Halted.
        """
        fd = _open(path)
        try:
            size = os.fstat(fd).st_size
            digest = digest_of(etag, size)
            with mmap.mmap(-1, PIECE_BYTES) as buffer, memoryview(buffer) as view:
                position = 0
                while position < size:
                    self._wait(halt)
                    count = os.preadv(fd, [view], position)
                    if not count:
                        break  # cut off meanwhile: the digest will be wrong, and is
                    with core:
                        digest.update(view[:count])
                    position += count
                    self._due += count / self._rate
                    add(count)
            return digest.hexdigest()
        finally:
            os.close(fd)

    def _wait(self, halt: Halt) -> None:
        now = self._clock()
        self._due = max(self._due, now)  # time in which nothing was hashed is not made up for
        halt.check()
        if self._due > now:
            halt.wait(self._due - now)


def idly(work: Callable[[], None]) -> None:
    """Do it in a thread of its own that has the lowest priority for CPU and disk; raises what it raises.

    Of its own, because a thread without privileges cannot have its priority back.
    """
    errors: list[BaseException] = []

    def body() -> None:
        _yield_to_all()
        try:
            work()
        except BaseException as error:  # raised below
            errors.append(error)

    thread = threading.Thread(target=body, name="idle")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def _open(path: Path) -> int:
    if hasattr(os, "O_DIRECT"):
        try:
            return os.open(path, os.O_RDONLY | os.O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:  # what file systems without it say
                raise
    return os.open(path, os.O_RDONLY)


def _yield_to_all() -> None:
    """Linux only, where each thread has priorities; elsewhere the pace alone is what spares others."""
    if sys.platform != "linux":
        return
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST)
    if (number := _SYS_IOPRIO_SET.get(os.uname().machine)) is not None:
        ctypes.CDLL(None).syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE)
