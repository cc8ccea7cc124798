"""A forward proxy for plain http, which counts what it is asked for."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP_BY_HOP = {"connection", "proxy-connection", "keep-alive", "transfer-encoding"}
_PIECE_BYTES = 1 << 16


@dataclass
class Proxy:
    """Its address, and the URLs that it was asked for."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, url: str) -> None:
        """One more request."""
        with self.lock:
            self.asked.append(url)


@contextmanager
def forward_proxy() -> Iterator[Proxy]:
    """A proxy at work on loopback."""
    proxy = Proxy()

    class Handler(BaseHTTPRequestHandler):
        """Sends a request on, and its answer back; one for each connection."""

        def do_GET(self) -> None:
            proxy.note(self.path)
            parts = urlsplit(self.path)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            onward = http.client.HTTPConnection(parts.netloc, timeout=30)
            try:
                onward.request(self.command, parts._replace(scheme="", netloc="").geturl(), headers=headers)
                answer = onward.getresponse()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in _HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("Connection", "close")
                self.end_headers()
                while piece := answer.read(_PIECE_BYTES):
                    self.wfile.write(piece)
            except OSError:
                self.close_connection = True
            finally:
                onward.close()

        do_HEAD = do_GET  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
