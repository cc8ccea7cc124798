"""HTTP/1.1 connections that keep up with a fast link: plain sockets under `http.client`, kept alive, a cap per host.

Bodies are received into the caller's buffer. Proxies are those of HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY (any
case), CAs those of SSL_CERT_FILE, SSL_CERT_DIR or REQUESTS_CA_BUNDLE, as with huggingface_hub.
"""

import base64
import contextlib
import http.client
import os
import socket
import ssl
import threading
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from slipway_service.fault import Reason

from slipway_registry.transfer.effort import Effort
from slipway_registry.transfer.errors import Away, Setback
from slipway_registry.transfer.halt import Halt
from slipway_registry.transfer.origin import Origin, wire_errors
from slipway_registry.transfer.response import Response
from slipway_registry.transfer.slots import Slots


@dataclass(frozen=True, slots=True, kw_only=True)
class WireSettings:
    """Bounds of the connections, in seconds and counts."""

    connect_timeout: float = 10.0  # as huggingface_hub's
    # No byte for this long and a connection is given up; a part's other bytes come over a new one.
    stall_timeout: float = 30.0
    # Over all files; CDNs serve a few MB/s to a few hundred MB/s per connection.
    connections_per_host: int = 32
    user_agent: str = "slipway-registry"


class Wire:
    """All connections of the process; safe for many threads."""

    def __init__(self, settings: WireSettings | None = None) -> None:
        self.settings = settings or WireSettings()
        self.effort = Effort()
        self._idle: dict[Origin, list[socket.socket]] = defaultdict(list)
        self._slots = Slots(self.settings.connections_per_host)
        self._lock = threading.Lock()
        self._proxies = {
            scheme: url for scheme, url in urllib.request.getproxies().items() if scheme in ("http", "https", "all")
        }
        self._tls: ssl.SSLContext | None = None

    @contextlib.contextmanager
    def get(self, url: str, headers: Mapping[str, str], halt: Halt) -> Iterator[Response]:
        """Send a GET and hand over its response, whatever its status; redirects are not followed.

        Raises:
            Away: there is no connection to be had.
            Setback: it broke.
            Halted.
        """
        origin = Origin.of(url)
        with self._slots.holding(origin, halt), contextlib.ExitStack() as stack:
            sock, response = self._exchange(origin, url, headers, halt, stack)
            try:
                yield response
                response.drain()
            except BaseException:
                response.close()
                sock.close()
                raise
            response.close()
            self._keep(origin, sock, response)

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            for sockets in self._idle.values():
                for sock in sockets:
                    sock.close()
            self._idle.clear()

    def _exchange(
        self, origin: Origin, url: str, headers: Mapping[str, str], halt: Halt, stack: contextlib.ExitStack
    ) -> tuple[socket.socket, Response]:
        """One request on an idle connection, or on a new one if the other side has closed that meanwhile."""
        if idle := self._take_idle(origin):
            try:
                with wire_errors(url):
                    return idle, self._request(origin, idle, url, headers, halt, stack)
            except Setback:
                idle.close()
                halt.check()
        with wire_errors(url):
            sock = self._dial(origin, halt)
            try:
                return sock, self._request(origin, sock, url, headers, halt, stack)
            except BaseException:
                sock.close()
                raise

    def _request(
        self,
        origin: Origin,
        sock: socket.socket,
        url: str,
        headers: Mapping[str, str],
        halt: Halt,
        stack: contextlib.ExitStack,
    ) -> Response:
        stack.enter_context(halt.waking(lambda: sock.shutdown(socket.SHUT_RDWR)))
        sock.settimeout(self.settings.stall_timeout)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)  # the body before this one may have had another
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(origin.host, origin.port)
        connection.sock = sock
        connection.default_port = 443 if origin.scheme == "https" else 80  # what Host leaves out
        proxy = self._proxy(origin)
        via = proxy if proxy and origin.scheme == "http" else None
        target = (
            parts._replace(scheme="", netloc="", fragment="").geturl()
            if via is None
            else parts._replace(fragment="").geturl()
        )
        sent = {"User-Agent": self.settings.user_agent, "Accept-Encoding": "identity", **headers}
        if via:
            sent |= _proxy_authorization(via)
        connection.request("GET", target or "/", headers=sent)
        return Response(connection.getresponse(), url, sock)

    def _dial(self, origin: Origin, halt: Halt) -> socket.socket:
        proxy = self._proxy(origin)
        host, port = (proxy.hostname or "", proxy.port or 80) if proxy else (origin.host, origin.port)
        try:
            sock = socket.create_connection((host, port), self.settings.connect_timeout)
        except OSError as error:
            raise Away(f"{proxy.hostname if proxy else origin}: {error}", reason=Reason.HUB_UNREACHABLE) from error
        try:
            with halt.waking(lambda: sock.shutdown(socket.SHUT_RDWR)):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if origin.scheme == "https":
                    if proxy:
                        _tunnel(sock, origin, proxy)
                    sock = self._secure(sock, origin)
        except BaseException:
            sock.close()
            raise
        return sock

    def _secure(self, sock: socket.socket, origin: Origin) -> socket.socket:
        with self._lock:
            self._tls = self._tls or tls_context()
        try:
            return self._tls.wrap_socket(sock, server_hostname=origin.host)
        except ssl.SSLError as error:
            raise Away(f"{origin}: {error}", reason=Reason.HUB_UNREACHABLE) from error

    def _proxy(self, origin: Origin) -> SplitResult | None:
        url = self._proxies.get(origin.scheme) or self._proxies.get("all")
        if not url or urllib.request.proxy_bypass(f"{origin.host}:{origin.port}"):
            return None
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme != "http":
            raise Away(f"proxy scheme {parts.scheme!r} is not supported; use http://", reason=Reason.HUB_UNREACHABLE)
        return parts

    def _take_idle(self, origin: Origin) -> socket.socket | None:
        with self._lock:
            return self._idle[origin].pop() if self._idle[origin] else None

    def _keep(self, origin: Origin, sock: socket.socket, response: Response) -> None:
        if not response.reusable:
            sock.close()
            return
        with self._lock:
            self._idle[origin].append(sock)


def tls_context() -> ssl.SSLContext:
    """The trust that the environment states, else the system's."""
    cafile = os.environ.get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE")
    capath = os.environ.get("SSL_CERT_DIR")
    if cafile and os.path.isdir(cafile):
        cafile, capath = None, cafile
    return ssl.create_default_context(cafile=cafile or None, capath=capath or None)


def _tunnel(sock: socket.socket, origin: Origin, proxy: SplitResult) -> None:
    """CONNECT through the proxy (RFC 9110, 9.3.6)."""
    authority = f"[{origin.host}]:{origin.port}" if ":" in origin.host else f"{origin.host}:{origin.port}"
    headers = {"Host": authority, **_proxy_authorization(proxy)}
    lines = [f"CONNECT {authority} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    sock.sendall("\r\n".join(lines).encode("ascii"))
    response = http.client.HTTPResponse(sock, method="CONNECT")
    response.begin()
    if response.status != http.HTTPStatus.OK:
        raise Away(f"proxy {proxy.hostname}: {response.status} {response.reason}", reason=Reason.HUB_UNREACHABLE)


def _proxy_authorization(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode("ascii")}
