"""Headers of weight files, read through a window that grows as it must and never holds the file."""

import struct
from collections.abc import Callable
from typing import Any

Read = Callable[[int, int], bytes]
"""`read(offset, length)`: bytes of a file, fewer than asked for only at its end."""

FIRST_READ_BYTES = 512 << 10
"""First read: the whole header of most safetensors shards, and all of a GGUF's but its vocabulary."""

LARGEST_READ_BYTES = 8 << 20
"""Reads double up to this: few requests for a vocabulary of several MiB, little wasted behind its end."""


class HeaderError(ValueError):
    """A file whose header is not one, is cut off, or claims what no model has."""


class Window:
    """A cursor over a file that is read in pieces.

    Args:
        read: gives bytes of the file.
        limit: no byte at or behind this offset is taken for header.
    """

    def __init__(self, read: Read, limit: int) -> None:
        self._read = read
        self._limit = limit
        self._start = 0
        self._bytes = b""
        self._next_read = FIRST_READ_BYTES
        self.position = 0

    def take(self, count: int) -> bytes:
        """The next bytes.

        Raises:
            HeaderError: the file ends before, or the header goes on for too long.
        """
        at = self._have(count)
        self.position += count
        return self._bytes[at : at + count]

    def unpack(self, form: struct.Struct) -> tuple[Any, ...]:
        """The next bytes as `form` reads them. Raises as `take`."""
        at = self._have(form.size)
        self.position += form.size
        return form.unpack_from(self._bytes, at)

    def skip(self, count: int) -> None:
        """Go on without reading. Raises as `take`, though not for a file that ends before."""
        if count > self._limit - self.position:
            raise HeaderError(f"the header goes on behind {self._limit:,} bytes")
        self.position += count

    def _have(self, count: int) -> int:
        """Where in the buffer the next `count` bytes begin, once they are there."""
        at = self.position - self._start
        if at >= 0 and at + count <= len(self._bytes):
            return at
        if count > self._limit - self.position:
            raise HeaderError(f"the header goes on behind {self._limit:,} bytes")
        self._refill(count, at)
        return 0

    def _refill(self, count: int, at: int) -> None:
        kept = self._bytes[at:] if 0 <= at < len(self._bytes) else b""
        begin = self.position + len(kept)
        length = min(max(count - len(kept), self._next_read), self._limit - begin)
        self._next_read = min(self._next_read * 2, LARGEST_READ_BYTES)
        self._bytes = kept + self._read(begin, length)[:length]
        self._start = self.position
        if len(self._bytes) < count:
            raise HeaderError("the file ends within its header")
