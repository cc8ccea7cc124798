"""Reading what a backend writes, as it is written, and turning it into signals."""

from collections.abc import Iterator

from slipway_runner.backends.base import Reader
from slipway_runner.process.logfile import READ_BYTES, LogFile
from slipway_runner.progress.parse import Lines
from slipway_runner.progress.signals import Signal


class Output:
    """The part of a log that belongs to one start of a backend.

    Args:
        log: the file.
        reader: what understands the backend's lines.
        start: offset of the first byte that this start wrote.
    """

    def __init__(self, log: LogFile, reader: Reader, start: int) -> None:
        self._log = log
        self._reader = reader
        self._lines = Lines()
        self.offset = start

    def read(self, size: int) -> Iterator[Signal]:
        """Read the next piece of a log that is `size` bytes long by now; what it says is yielded in order.

        At most 256 KiB are read at once; `offset` says how far it got.
        """
        if size <= self.offset:
            return
        piece = self._log.read(self.offset, READ_BYTES)
        self.offset = piece.next_offset
        for line in self._lines.feed(piece.data):
            yield from self._reader.line(line)

    def rest(self) -> Iterator[Signal]:
        """Read to the end, the last incomplete line too. For when the backend has ended."""
        size = self._log.size()
        while self.offset < size:
            yield from self.read(size)
        for line in self._lines.close():
            yield from self._reader.line(line)
