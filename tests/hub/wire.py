"""Puts replies on a socket: bodies by sendfile, paced where a limit holds, cut where a fault says so."""

import contextlib
import fcntl
import os
import select
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Iterator

from tests.hub.bodies import Cut, FileSlice, Segment, Stall, size, split
from tests.hub.journal import Exchange
from tests.hub.messages import OriginName, Reply
from tests.hub.throttle import Pace, Throttle

# Sent at once when nothing is paced: large, so that a whole part costs a handful of system calls.
_FULL_SPEED_BYTES = 8 << 20
# A paced body goes out this many times a second, in pieces of at most 256 KiB.
_PACED_PIECES_PER_SECOND = 40
_PACED_BYTES = 256 << 10
# A reset discards what the kernel has not delivered, so it waits this long for a reader to take the rest.
_DRAIN_SECONDS = 60.0
_DRAIN_POLL_SECONDS = 0.001
# How soon what is held goes on once it is released.
_HOLD_POLL_MS = 10


class ConnectionEndedError(Exception):
    """The connection is over: cut by a fault, left by the client, or the server stops."""


class Wire:
    """The sending side of one connection."""

    def __init__(
        self, connection: socket.socket, origin: OriginName, throttle: Throttle, stopping: threading.Event
    ) -> None:
        self._connection = connection
        self._origin: OriginName = origin
        self._throttle = throttle
        self._stopping = stopping
        self._pace = Pace()

    def send(self, reply: Reply, exchange: Exchange, *, head_only: bool) -> None:
        """Send a reply, adding the body's bytes to the exchange as they go.

        Raises:
            ConnectionEndedError: nothing more can be sent on this connection.
        """
        try:
            for mishap in reply.before:
                self._endure(mishap)
            self._cork(True)
            self._connection.sendall(reply.head())
            if not head_only:
                for segment in reply.body:
                    self._send_segment(segment, exchange, reply.rate)
            self._cork(False)
        except OSError as error:
            raise ConnectionEndedError from error

    def _cork(self, on: bool) -> None:
        """Let the kernel join small pieces (the head, frames of chunks) with what follows them."""
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, int(on))

    def _send_segment(self, segment: Segment, exchange: Exchange, rate: float | None) -> None:
        if isinstance(segment, Stall | Cut):
            self._endure(segment)
            return
        while size(segment):
            piece, segment = self._next_piece(segment, rate)
            if isinstance(piece, FileSlice):
                self._send_file(piece, exchange)
            elif isinstance(piece, bytes):
                exchange.sent += len(piece)
                self._connection.sendall(piece)

    def _next_piece(self, segment: Segment, rate: float | None) -> tuple[Segment, Segment]:
        """What may be sent now, and what is left; waits as long as the limits say."""
        limit = self._throttle.limit(self._origin)
        own = min((r for r in (rate, limit.per_connection) if r is not None), default=None)
        rates = [r for r in (own, limit.total) if r is not None]
        at_most = _FULL_SPEED_BYTES
        if rates:
            at_most = max(1, min(_PACED_BYTES, int(min(rates) / _PACED_PIECES_PER_SECOND)))
        left, right = split((segment,), at_most)
        count, now = size(left[0]), time.monotonic()
        waits = []
        if own is not None:
            waits.append(self._pace.reserve(count, own, now))
        if limit.total is not None:
            waits.append(self._throttle.total_pace(self._origin).reserve(count, limit.total, now))
        if waits and max(waits) > 0:
            self._wait(max(waits))
        return left[0], right[0] if right else b""

    def _send_file(self, piece: FileSlice, exchange: Exchange) -> None:
        if isinstance(self._connection, ssl.SSLSocket):
            for data in _read_pieces(piece):
                exchange.sent += len(data)
                self._connection.sendall(data)
            return
        offset = piece.start
        exchange.sent += piece.stop - piece.start  # before: who has received it all may look at once
        try:
            while offset < piece.stop:
                count = os.sendfile(self._connection.fileno(), piece.fd, offset, piece.stop - offset)
                if count == 0:
                    raise ConnectionEndedError(f"the file behind the reply ends at {offset}")
                offset += count
        finally:
            exchange.sent -= piece.stop - offset

    def _endure(self, mishap: Stall | Cut) -> None:
        if isinstance(mishap, Stall):
            self._wait(mishap.seconds, mishap.released)
            return
        self._cork(False)
        if mishap.reset:
            self._wait_until_delivered()
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise ConnectionEndedError

    def _wait(self, seconds: float | None, released: threading.Event | None = None) -> None:
        """Do nothing for a while, unless the client leaves or the server stops (it shuts the socket down)."""
        self._cork(False)  # what was sent so far is to arrive before the silence
        poll = select.poll()
        poll.register(self._connection, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        while not (released and released.is_set()):
            if poll.poll(_HOLD_POLL_MS if released else None if seconds is None else seconds * 1000):
                raise ConnectionEndedError
            if released is None:
                return

    def _wait_until_delivered(self) -> None:
        """Let the peer take what was sent; the kernel has no event for an empty send queue."""
        give_up = time.monotonic() + _DRAIN_SECONDS
        with contextlib.suppress(OSError):
            while time.monotonic() < give_up:
                (queued,) = struct.unpack("i", fcntl.ioctl(self._connection, termios.TIOCOUTQ, b"\0" * 4))
                if not queued or self._stopping.wait(_DRAIN_POLL_SECONDS):
                    return


def _read_pieces(piece: FileSlice) -> Iterator[bytes]:
    for offset in range(piece.start, piece.stop, _PACED_BYTES):
        yield os.pread(piece.fd, min(_PACED_BYTES, piece.stop - offset), offset)
