"""What an HTTP body is made of, as values: bytes, slices of files, and the mishaps between them.

Everything here is pure, so a fault is a change of a tuple and only `wire` touches a socket.
"""

import os
import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileSlice:
    """Bytes ``start`` to ``stop`` (exclusive) of an open file; sent by the kernel, never read here."""

    fd: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Stall:
    """Nothing is sent for ``seconds``, or until ``released``; None means until either side gives up."""

    seconds: float | None
    released: threading.Event | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection ends here: by RST when ``reset``, else by an orderly close."""

    reset: bool


Segment = bytes | FileSlice | Stall | Cut
Body = tuple[Segment, ...]


def size(segment: Segment) -> int:
    """Bytes that the segment puts on the wire."""
    match segment:
        case bytes():
            return len(segment)
        case FileSlice(start=start, stop=stop):
            return stop - start
        case _:
            return 0


def length(body: Body) -> int:
    """Bytes of a whole body."""
    return sum(map(size, body))


def split(body: Body, at: int) -> tuple[Body, Body]:
    """Cut a body in two after ``at`` bytes (everything is on the left if it is shorter)."""
    left: list[Segment] = []
    for index, segment in enumerate(body):
        n = size(segment)
        if n <= at:
            left.append(segment)
            at -= n
            continue
        if isinstance(segment, FileSlice):
            middle = segment.start + at
            head: Segment = FileSlice(segment.fd, segment.start, middle)
            tail: Segment = FileSlice(segment.fd, middle, segment.stop)
        else:
            assert isinstance(segment, bytes)
            head, tail = segment[:at], segment[at:]
        if at:
            left.append(head)
        return tuple(left), (tail, *body[index + 1 :])
    return tuple(left), ()


def part(body: Body, start: int, stop: int) -> Body:
    """Bytes ``start`` to ``stop`` (exclusive) of a body."""
    return split(split(body, stop)[0], start)[1]


def corrupt(body: Body, at: int) -> Body:
    """The same body with every bit of byte ``at`` flipped."""
    left, rest = split(body, at)
    victim, right = split(rest, 1)
    return (*left, bytes(byte ^ 0xFF for byte in read(victim)), *right)


def read(body: Body) -> bytes:
    """The bytes of a (small) body."""
    pieces = []
    for segment in body:
        if isinstance(segment, FileSlice):
            pieces.append(os.pread(segment.fd, segment.stop - segment.start, segment.start))
        elif isinstance(segment, bytes):
            pieces.append(segment)
    return b"".join(pieces)
