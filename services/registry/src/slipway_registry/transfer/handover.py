"""Buffers between the connections of a file and its hash: what was just written need not be read back.

The hash follows the file in order. Bytes that are next in that order are hashed while the CPU has them in its cache:
by the connection itself where other files keep the cores busy meanwhile, else by the hash's thread, to which the
connection lends its buffer, and for which it waits when it is ahead. All else (parts fetched out of order, bytes that
an earlier process left) is read from the file, and a connection with bytes for later does not wait.
"""

import mmap
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from slipway_registry.transfer.halt import Halt

# Each connection's, of which memory is taken for as much as arrives in GATHER_SECONDS: a kill loses what is in it. With
# one MiB a download takes a third more CPU time: each window update has some of the sender's work done in our name.
BUFFER_BYTES = 4 << 20
# Several connections share a link that none of them can fill: 20 MB/s bring as much in GATHER_SECONDS.
LEAST_BUFFER_BYTES = 1 << 20
# Lent at a time: one is hashed, and the others even out who was quicker.
MOST_LENT = 4


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes [start, end) of the file, to be hashed next: `view`, or None if they are to be read from the file."""

    start: int
    end: int
    view: memoryview | None = None


class Handover:
    """Of one file of `size` bytes; safe for any number of connections and one hash.

    Args:
        contiguous: how many bytes of the file are there without a gap.
    """

    def __init__(self, size: int, contiguous: Callable[[], int]) -> None:
        self._size = size
        self._contiguous = contiguous
        self._change = threading.Condition()
        self._free: list[Any] = []  # the memory behind the views
        self._lent: deque[Piece] = deque()
        self._add: Callable[[memoryview], None] | None = None
        self._busy: Callable[[], bool] | None = None
        self._least = 1
        self._hashed = 0
        self._next: int | None = None  # the byte that the hash has no piece for yet; None: there is no hash
        self._awaited: int | None = None  # the hash's thread sleeps until the file is there beyond this

    # Of connections.

    def take(self, position: int, halt: Halt, *, sharing: int = 1) -> memoryview:
        """A buffer for bytes from `position` on; if they are the hash's next ones, as soon as it has caught up.

        It is smaller where `sharing` connections have one each.

        Raises:
            Halted.
        """
        with halt.waking(self._wake), self._change:
            while len(self._lent) >= MOST_LENT and position == self._next:
                halt.check()
                self._change.wait()
            # Takes memory as it is filled; a bytearray has all of it from the start.
            buffer = (
                self._free.pop() if self._free else mmap.mmap(-1, BUFFER_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            )
        return memoryview(buffer)[: max(LEAST_BUFFER_BYTES, BUFFER_BYTES // sharing)]

    def give_back(self, view: memoryview) -> None:
        """It is not needed any more."""
        with self._change:
            self._free.append(view.obj)

    def offer(self, position: int, view: memoryview) -> bool:
        """Have the start of a taken buffer hashed, whose bytes are in the file from `position` on and not recorded yet.

        True: the hash's thread has it now, and it comes back by itself.
        """
        with self._change:
            if position != self._next or not view or not self._add or not self._busy:
                return False
            if self._awaited is None or not self._busy():
                self._next = position + len(view)
                self._lent.append(Piece(position, self._next, view))
                self._change.notify_all()
                return True
        self._add(view)  # the thread sleeps before these bytes, and wakes for none of them before they are recorded
        with self._change:
            if self._next is not None:
                self._hashed = self._next = position + len(view)
                self._await()
                if self._hashed == self._size:
                    self._change.notify_all()
        return False

    def grown(self) -> None:
        """The file has more contiguous bytes than before."""
        awaited = self._awaited
        if awaited is not None and self._contiguous() > awaited:  # else waking it would only cost time
            self._wake()

    # Of the hash.

    def begin(self, add: Callable[[memoryview], None], busy: Callable[[], bool], *, least: int) -> None:
        """A hash begins at the start of the file.

        Args:
            add: hashes the next bytes; called by one thread at a time, of a connection or the hash's own.
            busy: whether others keep the cores busy while a connection hashes.
            least: bytes of the file that are worth waking the thread for.
        """
        with self._change:
            self._add, self._busy, self._least = add, busy, least
            self._next = 0

    def next(self, done: Piece | None, *, most: int, halt: Halt) -> Piece | None:
        """Wait for the next bytes: a lent buffer, or at most `most` bytes of the file; None if all are hashed.

        Args:
            done: what this returned before, which is hashed now.

        Raises:
            Halted.
        """
        with halt.waking(self._wake), self._change:
            if done:
                self._hashed = done.end
            if done and done.view is not None:
                self._free.append(self._lent.popleft().view.obj)  # type: ignore[union-attr]
                self._change.notify_all()
            if not self._lent:
                self._next = self._hashed
            reached = self._sleep(halt)
            if self._lent:
                return self._lent[0]
            if self._hashed == self._size:
                return None
            self._next = min(reached, self._hashed + most)
            return Piece(self._hashed, self._next)

    def end(self) -> None:
        """There is no hash any more: nobody is to wait for it."""
        with self._change:
            self._next = None
            self._lent.clear()
            self._change.notify_all()

    def _sleep(self, halt: Halt) -> int:
        """Wait for a buffer, or until the file is far enough; returns how far it is."""
        self._await()  # before the look, so that a connection either is seen or sees it
        while (reached := self._contiguous()) <= (self._awaited or 0) and not self._lent and self._hashed < self._size:
            halt.check()
            self._change.wait()
        self._awaited = None
        return reached

    def _await(self) -> None:
        self._awaited = min(self._hashed + self._least, self._size) - 1

    def _wake(self) -> None:
        with self._change:
            self._change.notify_all()
