"""One HTTP/1.1 server on a loopback port: a thread per connection, keep-alive, a listener that can go away."""

import contextlib
import re
import socket
import ssl
import threading
import traceback
from collections.abc import Callable
from dataclasses import replace
from io import BufferedReader

from tests.hub.bodies import length, part
from tests.hub.journal import Exchange, Journal
from tests.hub.messages import OriginName, RangeError, Reply, Request, json_reply, parse_range
from tests.hub.rules import Rules
from tests.hub.throttle import Throttle
from tests.hub.wire import ConnectionEndedError, Wire

_BACKLOG = 4096
# More than any client here sends; what exceeds it ends the connection instead of filling memory.
_HEAD_LINES, _LINE_BYTES, _BODY_BYTES = 200, 64 << 10, 16 << 20
# How long `close` waits for a handler, which has nothing left to wait for by then.
_JOIN_SECONDS = 60.0

Route = Callable[[Request], Reply]


class Origin:
    """Serves a route under faults and limits, and journals it.

    ``admin`` answers paths that begin with ``/__``; those are not journalled and no fault strikes them.
    """

    def __init__(
        self,
        name: OriginName,
        route: Route,
        *,
        journal: Journal,
        rules: Rules,
        throttle: Throttle,
        tls: ssl.SSLContext | None = None,
        admin: Route | None = None,
    ) -> None:
        self.name: OriginName = name
        self._route, self._admin = route, admin
        self._journal, self._rules, self._throttle, self._tls = journal, rules, throttle, tls
        self._reserved: socket.socket | None = None  # never listens: keeps the port from others while this is away
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.port = 0

    @property
    def url(self) -> str:
        """Scheme, host and port, without a slash at the end."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def open(self, port: int = 0) -> None:
        """Listen on ``port``, or on the one it had before, or on a free one.

        Raises:
            OSError: the port is taken.
        """
        if self._reserved is None:
            self._reserved = bound(port or self.port)
            self.port = self._reserved.getsockname()[1]
        listener = bound(self.port)
        try:
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        self._stopping.clear()
        self._listener = listener
        self._acceptor = threading.Thread(
            target=self._accept, args=(listener,), name=f"hub-{self.name}-accept", daemon=True
        )
        self._acceptor.start()

    def close(self, *, for_good: bool = True) -> None:
        """Stop listening and cut every connection; returns when no handler is left. Its port stays its own if not
        ``for_good``."""
        if for_good and self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        if self._listener is None or self._acceptor is None:
            return
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(_JOIN_SECONDS)
        self._listener.close()
        self._listener = None
        with self._lock:
            connections = dict(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in connections.values():
            thread.join(_JOIN_SECONDS)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            with self._lock:
                self._connections[connection] = thread
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        stream = connection
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                stream = self._tls.wrap_socket(connection, server_side=True)
                with self._lock:
                    self._connections[stream] = self._connections.pop(connection)
            with stream.makefile("rb") as reader:
                wire = Wire(stream, self.name, self._throttle, self._stopping)
                while (request := read_request(reader)) is not None:
                    self._answer(request, wire)
                    if request.headers.get("connection", "").lower() == "close":
                        break
        except (OSError, ConnectionEndedError):
            pass  # the client has gone, or a fault sent it away
        finally:
            with self._lock:
                self._connections.pop(stream, None)
            stream.close()

    def _answer(self, request: Request, wire: Wire) -> None:
        head_only = request.method == "HEAD"
        if self._admin is not None and request.path.startswith("/__"):
            wire.send(self._admin(request), Exchange.of(self.name, request), head_only=head_only)
            return
        exchange = self._journal.begin(self.name, request)
        try:
            reply, exchange.faults = self._reply(request)
            exchange.status = reply.status
            wire.send(reply, exchange, head_only=head_only)
        finally:
            self._journal.finish(exchange)

    def _routed(self, request: Request) -> Reply:
        try:
            return self._route(request)
        except Exception as error:  # a mistake in the emulator is to show, not to look like the network
            traceback.print_exc()
            return json_reply({"error": f"emulator: {error!r}"}, status=500)

    def _reply(self, request: Request) -> tuple[Reply, tuple[str, ...]]:
        """The route's answer with Range and faults applied, and the names of the faults."""
        reply = self._routed(request)
        total = length(reply.body)
        header = request.headers.get("range") if reply.ranged else None
        try:
            span = parse_range(header, total)
        except RangeError:
            span = (total, total)
        faults = self._rules.strike(self.name, request, span or (0, total))
        for fault in faults:
            reply = fault.whole(reply)
        if span is not None and reply.ranged:
            reply = _ranged(reply, span, total)
        for fault in faults:
            reply = fault.sent(reply)
        return reply, tuple(fault.name for fault in faults)


def bound(port: int) -> socket.socket:
    """A socket on loopback that does not listen: who connects is refused, and nobody else is given its port.

    Another may be bound to the same port on purpose, and listen.

    Raises:
        OSError: somebody listens there.
    """
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(("127.0.0.1", port))
    except OSError:
        found.close()
        raise
    return found


def _ranged(reply: Reply, span: tuple[int, int], total: int) -> Reply:
    start, stop = span
    if start == stop:
        refused = replace(reply, status=416, body=(), ranged=False)
        return refused.with_headers({"Content-Range": f"bytes */{total}"})
    partial = replace(reply, status=206, body=part(reply.body, start, stop))
    return partial.with_headers({"Content-Range": f"bytes {start}-{stop - 1}/{total}"})


def read_request(reader: BufferedReader) -> Request | None:
    """The next request of a connection; None at its end, or where it is not HTTP."""
    words = reader.readline(_LINE_BYTES).decode("latin-1").split()
    if len(words) != 3:
        return None
    headers: dict[str, str] = {}
    for _ in range(_HEAD_LINES):
        line = reader.readline(_LINE_BYTES).decode("latin-1")
        if line in ("\r\n", "\n", ""):
            break
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    if words[2] == "HTTP/1.0":
        headers.setdefault("connection", "close")
    body = _read_body(reader, headers)
    if body is None:
        return None
    return Request(method=words[0], target=words[1], headers=headers, body=body)


def _read_body(reader: BufferedReader, headers: dict[str, str]) -> bytes | None:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _read_chunked(reader)
    claimed = headers.get("content-length", "0")
    if not claimed.isdigit() or int(claimed) > _BODY_BYTES:
        return None
    return reader.read(int(claimed))


def _read_chunked(reader: BufferedReader) -> bytes | None:
    body = b""
    while match := re.match(rb"[0-9a-fA-F]{1,7}", reader.readline(_LINE_BYTES)):
        count = int(match[0], 16)
        body += reader.read(count)
        reader.readline(_LINE_BYTES)
        if not count:
            return body
        if len(body) > _BODY_BYTES:
            break
    return None
