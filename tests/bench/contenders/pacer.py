"""An upstream that paces tokens as a GPU does: ``python -m tests.bench.contenders.pacer``; writes its port.

Every token carries the moment at which it was sent (CLOCK_MONOTONIC, which all processes of a host share). How fast,
the request says: `{"rate": 50}` tokens a second, or as fast as they are taken with 0.
"""

import asyncio
import json
import random
import time

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
PADDING = "x" * 160
"""A chunk of OpenAI's is about 250 bytes."""

BURST = 16
"""Tokens of a stream that are written before another one has its turn, flat out."""


def token() -> bytes:
    """One server-sent event as one chunk."""
    event = f'data: {{"sent":{time.monotonic_ns()},"delta":"{PADDING}"}}\n\n'.encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


class Stream(asyncio.Protocol):
    """One connection, which asks once."""

    def __init__(self) -> None:
        self._asked = b""
        self._timer: asyncio.Handle | None = None
        self._transport: asyncio.Transport | None = None
        self._due = 0.0
        self._pause = 0.0
        self._waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._asked += data
        _, end, body = self._asked.partition(b"\r\n\r\n")
        if end and body.endswith(b"}"):
            rate = json.loads(body)["rate"]
            assert self._transport is not None
            self._transport.write(HEAD)
            loop = asyncio.get_running_loop()
            self._pause = 1 / rate if rate else 0.0
            self._due = loop.time() + random.random() * self._pause  # streams are not in step
            self._timer = loop.call_at(self._due, self._paced if rate else self._flat_out)

    def _paced(self) -> None:
        assert self._transport is not None
        if self._transport.is_closing():
            return
        self._transport.write(token())
        self._due += self._pause
        self._timer = asyncio.get_running_loop().call_at(self._due, self._paced)

    def _flat_out(self) -> None:
        assert self._transport is not None
        for _ in range(BURST):
            if self._waiting or self._transport.is_closing():
                return
            self._transport.write(token())
        self._timer = asyncio.get_running_loop().call_soon(self._flat_out)

    def pause_writing(self) -> None:
        self._waiting = True

    def resume_writing(self) -> None:
        self._waiting = False
        if not self._pause:
            self._timer = asyncio.get_running_loop().call_soon(self._flat_out)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Stream, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
