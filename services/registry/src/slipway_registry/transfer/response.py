"""An answer on a connection of ours, its body received straight into the caller's buffer."""

import contextlib
import http.client
import socket
from collections.abc import Mapping
from typing import cast

from slipway_registry.transfer.body import Body
from slipway_registry.transfer.errors import Setback
from slipway_registry.transfer.origin import Origin, setback_of

# Receiving this much is cheaper than a new connection with TLS.
_DRAIN_BYTES = 64 << 10


class Response:
    """A status, headers, and a body of `length` bytes (None: until it ends) to be received from `sock`."""

    def __init__(self, response: http.client.HTTPResponse, url: str, sock: socket.socket) -> None:
        self.url = url
        self.status = response.status
        self.headers = cast("Mapping[str, str]", response.headers)  # case does not matter in it
        self.length = response.length
        self._response = response
        self._body = Body(response, sock)

    def header(self, name: str) -> str:
        """A header's value, "" where there is none."""
        return self.headers.get(name) or ""

    def receive_into(self, view: memoryview) -> int:
        """Receive what arrives soon (see Body.receive), at least a byte unless the body has ended (0).

        Raises:
            Setback: the connection broke, stalled, or ended early; what came before was handed over.
        """
        length = self.length
        if length == 0:
            return 0
        try:
            count = self._body.receive(view if length is None else view[:length])
        except (OSError, http.client.HTTPException) as error:
            raise setback_of(error, self.url) from error
        if length is not None:
            if count == 0:
                raise Setback(f"{self.where} ended {length} bytes early")
            self.length = length - count
        return count

    def read(self, most: int) -> bytes:
        """The whole body.

        Raises:
            Setback: it is longer than `most` bytes, or broke.
        """
        buffer, filled = memoryview(bytearray(most + 1)), 0
        while filled <= most and (count := self.receive_into(buffer[filled:])):
            filled += count
        if filled > most:
            raise Setback(f"{self.where} sends more than {most} bytes")
        return bytes(buffer[:filled])

    def drain(self) -> None:
        """Receive what little is left (the text beside a redirect), so that the connection can be kept."""
        if self.length is not None and self.length <= _DRAIN_BYTES:
            scratch = memoryview(bytearray(self.length))
            with contextlib.suppress(Setback):
                while self.receive_into(scratch):
                    pass

    def close(self) -> None:
        """Let go of the connection, which may be used again if the body has been received."""
        self._response.close()

    @property
    def where(self) -> str:
        """The URL's origin, for messages: the rest may be a signature."""
        return str(Origin.of(self.url))

    @property
    def reusable(self) -> bool:
        """Whether the next request may use the connection."""
        return self.length == 0 and not self._response.will_close and not self._response.chunked
