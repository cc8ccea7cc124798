"""The hash that names a blob, computed beside its transfer, of what connections hand over or the file has."""

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from slipway_registry.transfer.halt import Halt
from slipway_registry.transfer.handover import Piece
from slipway_registry.transfer.partial import Partial

# Read from the page cache in pieces that stay in the CPU's cache and release the interpreter for ~0.6 ms each.
_PIECE_BYTES = 1 << 20
# A turn on the core takes at most 10 ms, so that files that wait for it do not change places at every piece.
_TURN_BYTES = 16 << 20
# What is read back before a connection that has the bytes behind it may lend them, and then waits: 0.04 s.
_BEHIND_BYTES = 64 << 20
# Begin to write pages out in pieces of this size: large enough for a disk, small enough that fsync finds little left.
_WRITEBACK_BYTES = 16 << 20

_SHA256_HEX = 64


class OneCore:
    """Lets one thread at a time hash what it reads, so that verification never takes more than one core from inference.

    What connections hash as it comes is bounded by what comes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._followed = 0
        self._count = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """A file is hashed while it is fetched."""
        with self._count:
            self._followed += 1
        try:
            yield
        finally:
            with self._count:
                self._followed -= 1

    def shared(self) -> bool:
        """Whether several files are hashed while they are fetched."""
        return self._followed > 1


def digest_of(etag: str, size: int) -> "hashlib._Hash":
    """The hash that an etag states: sha256 (64 digits: LFS, xet), else git's sha1 of a blob of `size` bytes."""
    if len(etag) == _SHA256_HEX:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


class _Running:
    """The hash of a partial so far; has the kernel write out what is hashed."""

    def __init__(self, partial: Partial, etag: str) -> None:
        self._partial = partial
        self._digest = digest_of(etag, partial.size)
        self._position = self._flushed = 0

    def add(self, view: memoryview) -> None:
        """The next bytes."""
        self._digest.update(view)
        self._position += len(view)
        if self._position - self._flushed >= _WRITEBACK_BYTES or self._position == self._partial.size:
            self._partial.start_writeback(self._flushed, self._position - self._flushed)
            self._flushed = self._position

    def hexdigest(self) -> str:
        """Of all that was added."""
        return self._digest.hexdigest()


def follow(partial: Partial, etag: str, core: OneCore, halt: Halt) -> str:
    """Hash the partial as it grows, and have the kernel write out what is hashed.

    Returns the hex digest once the last byte is there.

    Raises:
        Halted.
        Fault: DISK_FAULT.
    """
    running = _Running(partial, etag)
    buffer = memoryview(bytearray(_PIECE_BYTES))
    handover, piece = partial.handover, None
    handover.begin(running.add, core.shared, least=_PIECE_BYTES)
    try:
        with core.following():
            while piece := handover.next(piece, most=_BEHIND_BYTES, halt=halt):
                if piece.view is not None:
                    running.add(piece.view)
                else:
                    _read_back(partial, piece, running, buffer, core, halt)
    finally:
        handover.end()
    return running.hexdigest()


def _read_back(
    partial: Partial, piece: Piece, running: _Running, buffer: memoryview, core: OneCore, halt: Halt
) -> None:
    position = piece.start
    while position < piece.end:
        turn = min(position + _TURN_BYTES, piece.end)
        with core:
            while position < turn:
                halt.check()
                count = partial.read_into(position, buffer[: turn - position])
                running.add(buffer[:count])
                position += count


def hash_file(path: Path, etag: str, core: OneCore, halt: Halt, add: Callable[[int], None]) -> str:
    """Hash a file that is whole; `add` is told the bytes as they are hashed.

    Raises:
        OSError, Halted.
    """
    buffer = memoryview(bytearray(_PIECE_BYTES))
    with path.open("rb", buffering=0) as file:
        digest = digest_of(etag, os.fstat(file.fileno()).st_size)
        while True:
            halt.check()
            with core:
                count = file.readinto(buffer) or 0
                digest.update(buffer[:count])
            if not count:
                return digest.hexdigest()
            add(count)
