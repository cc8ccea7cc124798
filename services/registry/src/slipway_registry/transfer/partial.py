"""A blob on its way: `data` (full size from the start) and `frontier`, in a directory of its own."""

import contextlib
import ctypes
import errno
import fcntl
import os
import threading
import uuid
import zlib
from pathlib import Path
from typing import Self

from slipway_registry.transfer.errors import Setback, Vanished, disk_errors
from slipway_registry.transfer.frontier import BLOCK_BYTES, Frontier, boot_id
from slipway_registry.transfer.halt import Halt

DATA = "data"
FRONTIER = "frontier"

_UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_SYNC_FILE_RANGE_WRITE = 2
_libc = ctypes.CDLL(None, use_errno=True)


class Partial:
    """The open files of one blob. Writers own disjoint blocks; readers follow `wait_beyond`.

    Use `open`, and close it (a context manager).
    """

    def __init__(self, directory: Path, data: int, frontier_fd: int, frontier: Frontier) -> None:
        self.directory = directory
        self.frontier = frontier
        self.size = frontier.size
        self._data = data
        self._frontier_fd = frontier_fd
        self._grown = threading.Condition()

    @classmethod
    def open(cls, directory: Path, size: int, *, boot: uuid.UUID | None = None, block_bytes: int = BLOCK_BYTES) -> Self:
        """Take up what `directory` holds, or begin there; space is taken from the file system at once where it can.

        Raises:
            DiskFull: there is no room for `size` bytes.
            Setback: another process writes this blob.
        """
        boot = boot or boot_id()
        with disk_errors(directory), contextlib.ExitStack() as undo:
            directory.mkdir(parents=True, exist_ok=True)
            data = os.open(directory / DATA, os.O_RDWR | os.O_CREAT, 0o666)
            undo.callback(os.close, data)
            fd = os.open(directory / FRONTIER, os.O_RDWR | os.O_CREAT, 0o666)
            undo.callback(os.close, fd)
            _exclude_others(fd, directory)
            frontier = Frontier.load(fd, size) if os.fstat(data).st_size == size else None
            if frontier is None:
                os.ftruncate(data, 0)
                allocate(data, size)
                frontier = Frontier.create(fd, size, boot=boot, block_bytes=block_bytes)
            partial = cls(directory, data, fd, frontier)
            if frontier.boot != boot:
                frontier.confirm(partial.read, boot)
            undo.pop_all()
            return partial

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._data)
        os.close(self._frontier_fd)

    def write(self, position: int, view: memoryview) -> None:
        """Write bytes that begin where a block was left, or before that: what is there already is passed over.

        Raises:
            DiskFull, Fault(DISK_FAULT).
        """
        with disk_errors(self.directory / DATA):
            while view:
                taken = self._write_in_block(position, view)
                position += taken
                view = view[taken:]
        with self._grown:
            self._grown.notify_all()

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the file, fewer at its end."""
        return os.pread(self._data, length, offset)

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill `view` from `offset`; returns how many bytes there were."""
        return os.preadv(self._data, [view], offset)

    def wait_beyond(self, position: int, halt: Halt) -> int:
        """Wait until the file is there without a gap beyond `position`; returns how far.

        Raises:
            Halted.
        """
        with halt.waking(self._wake), self._grown:
            while (reached := self.frontier.contiguous) <= position:
                halt.check()
                self._grown.wait()
        return reached

    def check_present(self) -> None:
        """Raises Vanished if someone removed the files (`hf cache rm` takes whole repositories)."""
        if os.fstat(self._data).st_nlink == 0 or os.fstat(self._frontier_fd).st_nlink == 0:
            raise Vanished(str(self.directory))

    def start_writeback(self, offset: int, length: int) -> None:
        """Have the kernel begin to write these pages out, so that the final fsync finds little to do."""
        _libc.sync_file_range(
            ctypes.c_int(self._data),
            ctypes.c_int64(offset),
            ctypes.c_int64(length),
            ctypes.c_uint(_SYNC_FILE_RANGE_WRITE),
        )

    def sync(self, mode: int) -> None:
        """Give the data its final mode and bring it to the disk."""
        with disk_errors(self.directory / DATA):
            os.fchmod(self._data, mode)
            os.fsync(self._data)

    def _wake(self) -> None:
        with self._grown:
            self._grown.notify_all()

    def _write_in_block(self, position: int, view: memoryview) -> int:
        frontier = self.frontier
        block, offset = divmod(position, frontier.block_bytes)
        taken = min(len(view), frontier.block_bytes - offset)
        filled = frontier.filled(block)
        if offset > filled:
            raise ValueError(f"byte {position} does not continue block {block}, which has {filled}")
        piece = view[filled - offset : taken]
        if piece:
            _write_all(self._data, piece, position + filled - offset)
            frontier.record(block, offset + taken, zlib.crc32(piece, frontier.crc(block)))
        return taken


def allocate(fd: int, size: int) -> None:
    """Give the file `size` bytes: allocated where the file system does that natively, else a hole of that length.

    `fallocate(2)` itself: glibc's posix_fallocate writes every page where the file system cannot (NFS below 4.2).
    """
    if size and _libc.fallocate(ctypes.c_int(fd), ctypes.c_int(0), ctypes.c_int64(0), ctypes.c_int64(size)) != 0:
        code = ctypes.get_errno()
        if code not in _UNSUPPORTED:
            raise OSError(code, os.strerror(code))
    os.ftruncate(fd, size)


def _write_all(fd: int, view: memoryview, offset: int) -> None:
    while view:
        written = os.pwrite(fd, view, offset)
        offset += written
        view = view[written:]


def _exclude_others(fd: int, directory: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Setback(f"{directory} is being written by another process") from None
    except OSError:
        pass  # no locks on this file system; the hash is what correctness rests on
