"""A backend's log: a file it appends to, whose offsets never move and whose old head gives its disk space back.

The file only ever grows in length. When it holds more than is to be kept, its beginning is punched out (fallocate(2),
FALLOC_FL_PUNCH_HOLE): the bytes are gone, the offsets of the rest stay.
"""

import ctypes
import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_KEEP_SIZE = 0x01
_PUNCH_HOLE = 0x02
# Holes are made of whole blocks; 4 KiB is a block on every file system that can do it, and a multiple is always
# allowed.
_BLOCK = 4096

# It may hold prompts.
_PRIVATE = 0o600

# At most this much is read at once, so that a log that grew while nobody looked cannot fill the memory.
READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a log; `offset` is that of the first one, which may be later than was asked for."""

    offset: int
    data: bytes

    @property
    def next_offset(self) -> int:
        """Where to read on."""
        return self.offset + len(self.data)


class LogFile:
    """The log at `path`, for readers and for the one who trims it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name = str(path)

    def size(self) -> int:
        """The offset behind the last byte; 0 when there is no file yet."""
        try:
            return os.stat(self._name).st_size  # some of these a second for each model: without Path's own cost
        except FileNotFoundError:
            return 0

    def read(self, offset: int, limit: int = READ_BYTES) -> Piece:
        """Read at most `limit` bytes from `offset`, or from the first that is still kept.

        An offset beyond the end yields nothing, at that offset.
        """
        try:
            with self.path.open("rb") as file:
                return read_piece(file, offset, limit)
        except FileNotFoundError:
            return Piece(offset, b"")

    def open(self) -> BinaryIO:
        """Open it for `read_piece`, made if it is not there yet; so it can be read to its end though it is removed.

        Raises:
            OSError: the file system refuses.
        """
        return open(os.open(self.path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, _PRIVATE), "rb", buffering=0)

    def last_lines(self, count: int, *, within: int = 64 * 1024, width: int = 1000) -> tuple[str, ...]:
        """The last `count` lines of the last `within` bytes, each at most `width` characters; the first may be cut."""
        piece = self.read(max(0, self.size() - within), within)
        lines = piece.data.decode(errors="replace").replace("\r", "\n").split("\n")
        return tuple(line[:width] for line in lines if line.strip())[-count:]

    def trim(self, keep: int) -> bool:
        """Punch out all but about the last `keep` bytes.

        Returns:
            False where the file system cannot do that; the file is as it was then.
        """
        end = (self.size() - keep) // _BLOCK * _BLOCK
        if end <= 0:
            return True
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            return _punch(descriptor, end)
        finally:
            os.close(descriptor)


def read_piece(file: BinaryIO, offset: int, limit: int = READ_BYTES) -> Piece:
    """As `LogFile.read`, of a log that is open."""
    start = max(offset, _first_kept(file.fileno()))
    file.seek(start)
    return Piece(start, file.read(limit))


def _first_kept(descriptor: int) -> int:
    try:
        return os.lseek(descriptor, 0, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # an empty file, or nothing but a hole
            return os.fstat(descriptor).st_size
        raise


def _punch(descriptor: int, length: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(length)) == 0:
        return True
    code = ctypes.get_errno()
    if code in {errno.EOPNOTSUPP, errno.ENOSYS}:
        return False
    raise OSError(code, os.strerror(code))
