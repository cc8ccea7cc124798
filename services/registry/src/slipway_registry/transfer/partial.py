"""A blob on its way: `data` (full size from the start) and `frontier`, in a directory of its own."""

import contextlib
import ctypes
import errno
import fcntl
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from crc32c import crc32c

from slipway_registry.transfer.errors import Setback, Vanished, disk_errors
from slipway_registry.transfer.frontier import BLOCK_BYTES, Entry, Frontier, boot_id
from slipway_registry.transfer.handover import Handover

DATA = "data"
FRONTIER = "frontier"

_UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_SYNC_FILE_RANGE_WRITE = 2
_TMPFS_MAGIC = 0x01021994  # statfs(2)
_STATFS_BYTES = 256  # of which the kernel uses 120 at most
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fresh:
    """Bytes [start, end) of the file, which continue a block that has `filled` bytes with `crc`."""

    block: int
    filled: int
    crc: int
    start: int
    end: int

    def entry(self, view: memoryview) -> Entry:
        """What the frontier is to say of the block once these bytes, which are in `view`, are written."""
        return Entry(self.block, self.filled + len(view), crc32c(view, self.crc))


class Partial:
    """The open files of one blob. Writers own disjoint blocks; a hash may follow them by the `handover`.

    Use `open`, and close it (a context manager).
    """

    def __init__(self, directory: Path, data: int, frontier_fd: int, frontier: Frontier) -> None:
        self.directory = directory
        self.frontier = frontier
        self.size = frontier.size
        self._data = data
        self._frontier_fd = frontier_fd
        self.handover = Handover(self.size, lambda: frontier.contiguous)

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

    def write(self, position: int, view: memoryview, *, lend: bool = False) -> bool:
        """Write bytes that begin where a block was left, or before that: what is there already is passed over.

        Args:
            lend: the view is the start of a buffer that was taken from the handover.

        Returns:
            Whether the hash has the buffer now.

        Raises:
            DiskFull, Fault(DISK_FAULT).
        """
        fresh = self._fresh(position, position + len(view))
        with disk_errors(self.directory / DATA):
            for start, end in _joined(fresh):
                _write_all(self._data, view[start - position : end - position], start)
            entries = [one.entry(view[one.start - position : one.end - position]) for one in fresh]
            # Once lent, others may write to the view; once recorded, the hash reads from the file what is not lent.
            whole = sum(one.end - one.start for one in fresh) == len(view)
            lent = lend and whole and self.handover.offer(position, view)
            self.frontier.record(*entries)
        self.handover.grown()
        return lent

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the file, fewer at its end. Raises Fault(DISK_FAULT)."""
        with disk_errors(self.directory / DATA):
            return os.pread(self._data, length, offset)

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill `view` from `offset`; returns how many bytes there were. Raises Fault(DISK_FAULT)."""
        with disk_errors(self.directory / DATA):
            return os.preadv(self._data, [view], offset)

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

    def _fresh(self, position: int, end: int) -> list[_Fresh]:
        """What of these bytes is not there yet."""
        size, found = self.frontier.block_bytes, []
        while position < end:
            block, offset = divmod(position, size)
            filled, crc = self.frontier.entry(block)
            if offset > filled:
                raise ValueError(f"byte {position} does not continue block {block}, which has {filled}")
            origin = block * size
            stop = min(end, origin + size)
            if origin + filled < stop:
                found.append(_Fresh(block=block, filled=filled, crc=crc, start=origin + filled, end=stop))
            position = stop
        return found


def _joined(fresh: Iterable[_Fresh]) -> Iterator[tuple[int, int]]:
    """Their bytes, neighbours as one."""
    found: list[tuple[int, int]] = []
    for one in fresh:
        if found and found[-1][1] == one.start:
            found[-1] = (found[-1][0], one.end)
        else:
            found.append((one.start, one.end))
    return iter(found)


def allocate(fd: int, size: int) -> None:
    """Give the file `size` bytes: allocated where the file system does that natively, else a hole of that length.

    `fallocate(2)` itself: glibc's posix_fallocate writes every page where the file system cannot (NFS below 4.2). A
    tmpfs can only clear every page, which takes 0.25 s a GB before the first byte may come: there it is a hole, too.
    """
    wanted = 0 if _in_memory(fd) else size
    if wanted and _libc.fallocate(ctypes.c_int(fd), ctypes.c_int(0), ctypes.c_int64(0), ctypes.c_int64(wanted)) != 0:
        code = ctypes.get_errno()
        if code not in _UNSUPPORTED:
            raise OSError(code, os.strerror(code))
    os.ftruncate(fd, size)


def _in_memory(fd: int) -> bool:
    """Whether the file is on a tmpfs."""
    found = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.fstatfs(ctypes.c_int(fd), found) != 0:
        return False
    return ctypes.c_long.from_buffer(found).value == _TMPFS_MAGIC  # `f_type`, the first field


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
