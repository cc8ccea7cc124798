"""The body of a response, received from its socket into the caller's buffer, as much at a time as arrives soon."""

import http.client
import math
import socket
import ssl
import struct
import time
from collections.abc import Callable

# Bytes are handed over at least this often (seconds), so that on a slow link progress is seen and little is lost.
GATHER_SECONDS = 0.05
# A thread that waits for bytes is woken for no fewer than these, or when GATHER_SECONDS are over.
_WAKE_BYTES = 256 << 10


class Body:
    """Of `response`, which came from `sock`; the socket's timeout says how long no byte may come."""

    def __init__(self, response: http.client.HTTPResponse, sock: socket.socket) -> None:
        self._response = response
        self._sock = sock
        self._stall_seconds = sock.gettimeout() or math.inf
        self._error: Exception | None = None
        self._wake_bytes = 1
        self._piece: Callable[[memoryview], int] = self._chunk
        if not response.chunked:  # `http.client` cannot read on after a timeout amid chunks
            sock.settimeout(GATHER_SECONDS)
            self._piece = self._read_ahead

    def receive(self, view: memoryview) -> int:
        """Fill the view, unless the body or `GATHER_SECONDS` end before; at least a byte unless the body has ended.

        A chunked body comes chunk by chunk.

        Raises:
            OSError, http.client.HTTPException: the connection broke or stalled; what came before was handed over.
        """
        if self._error:
            raise self._error
        filled, begin = 0, time.monotonic()
        while filled < len(view):
            try:
                count = self._piece(view[filled:])
            except (TimeoutError, BlockingIOError):
                if filled:
                    break
                if time.monotonic() - begin >= self._stall_seconds:
                    raise TimeoutError from None
                continue
            except (OSError, http.client.HTTPException) as error:
                if not filled:
                    raise
                self._error = error
                break
            filled += count
            if not count or self._response.chunked or time.monotonic() - begin >= GATHER_SECONDS:
                break
        return filled

    def _chunk(self, view: memoryview) -> int:
        data = self._response.read1(len(view))
        view[: len(data)] = data
        return len(data)

    def _read_ahead(self, view: memoryview) -> int:
        """What `http.client` has read beyond the head.

        By `peek`: `readinto1` goes on to the socket, and forgets what it had if that times out.
        """
        ahead = b""
        try:
            ahead = self._response.fp.peek()
            taken = self._response.fp.read(min(len(ahead), len(view)))
            view[: len(taken)] = taken
            return len(taken)
        finally:
            if len(ahead) <= len(view):
                self._piece = self._directly()

    def _directly(self) -> Callable[[memoryview], int]:
        """TLS hands over 16 KiB at a time. All else the kernel puts together, and wakes the thread when it is much."""
        sock = self._sock
        if isinstance(sock, ssl.SSLSocket):
            return sock.recv_into
        sock.settimeout(None)
        seconds, fraction = divmod(GATHER_SECONDS, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(seconds), int(fraction * 1e6)))
        return self._whole

    def _whole(self, view: memoryview) -> int:
        wake_bytes = min(_WAKE_BYTES, len(view))
        if wake_bytes != self._wake_bytes:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wake_bytes)
            self._wake_bytes = wake_bytes
        return self._sock.recv_into(view, 0, socket.MSG_WAITALL)
