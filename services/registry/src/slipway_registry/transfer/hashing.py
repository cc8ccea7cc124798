"""The hash that names a blob, computed beside its transfer by reading back what the frontier has passed."""

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from slipway_registry.transfer.halt import Halt
from slipway_registry.transfer.partial import Partial

# Read from the page cache in pieces that stay in the CPU's cache and release the interpreter for ~0.6 ms each.
_PIECE_BYTES = 1 << 20
# Begin to write pages out in pieces of this size: large enough for a disk, small enough that fsync finds little left.
_WRITEBACK_BYTES = 16 << 20

_SHA256_HEX = 64


class OneCore:
    """Lets one thread hash at a time, so that verification never takes more than one core from inference."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def digest_of(etag: str, size: int) -> "hashlib._Hash":
    """The hash that an etag states: sha256 (64 digits: LFS, xet), else git's sha1 of a blob of `size` bytes."""
    if len(etag) == _SHA256_HEX:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def follow(partial: Partial, etag: str, core: OneCore, halt: Halt) -> str:
    """Hash the partial as it grows; returns the hex digest once its last byte is there.

    Raises:
        Halted.
    """
    digest = digest_of(etag, partial.size)
    buffer = memoryview(bytearray(_PIECE_BYTES))
    position = 0
    while position < partial.size:
        reached = partial.wait_beyond(position, halt)
        while position < reached:
            halt.check()
            with core:
                count = partial.read_into(position, buffer[: reached - position])
                digest.update(buffer[:count])
            position += count
    return digest.hexdigest()


def write_back(partial: Partial, halt: Halt) -> None:
    """Start the kernel's writing as the partial grows, until it is whole. Raises Halted."""
    position = 0
    while position < partial.size:
        reached = partial.wait_beyond(min(position + _WRITEBACK_BYTES, partial.size) - 1, halt)
        partial.start_writeback(position, reached - position)
        position = reached


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
