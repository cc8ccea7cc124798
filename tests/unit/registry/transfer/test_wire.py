"""Against small servers of its own: what matters is which bytes go where."""

import base64
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from slipway_registry.transfer import body as body_module
from slipway_registry.transfer.errors import Away, Setback
from slipway_registry.transfer.halt import Halt, Halted
from slipway_registry.transfer.origin import Origin
from slipway_registry.transfer.response import Response
from slipway_registry.transfer.wire import Wire, WireSettings
from slipway_service.fault import Fault, Reason

Serve = Callable[[socket.socket], None]


class Server:
    """Accepts connections and hands each to `serve` in a thread; `heads` are the request heads it saw."""

    def __init__(self, serve: Serve | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.heads: list[str] = []
        self.accepted = 0
        self._serve = serve or self.answer_all
        self._tls = tls
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._handle, args=(sock,), daemon=True).start()

    def _handle(self, sock: socket.socket) -> None:
        try:
            if self._tls:
                sock = self._tls.wrap_socket(sock, server_side=True)
            with sock:
                self._serve(sock)
        except OSError:
            pass

    def read_head(self, sock: socket.socket) -> str:
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            if not (more := sock.recv(1)):
                return ""
            data += more
        self.heads.append(data.decode())
        return self.heads[-1]

    def answer_all(self, sock: socket.socket) -> None:
        while self.read_head(sock):
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(handler: Callable[[Server, socket.socket], None] | None = None, **options: ssl.SSLContext) -> Server:
        server = Server(**options)  # type: ignore[arg-type]
        if handler:
            server._serve = lambda sock: handler(server, sock)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def wires() -> Iterator[Callable[..., Wire]]:
    """Makes wires that are closed at the end."""
    made: list[Wire] = []

    def make(**settings: float) -> Wire:
        made.append(Wire(WireSettings(**settings)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for wire in made:
        wire.close()


def body(response: Response) -> bytes:
    buffer, received = memoryview(bytearray(1 << 16)), b""
    while count := response.receive_into(buffer):
        received += bytes(buffer[:count])
    return received


def fetch(wire: Wire, url: str, halt: Halt | None = None) -> bytes:
    with wire.get(url, {"Range": "bytes=0-4"}, halt or Halt()) as response:
        return body(response)


def test_a_connection_is_used_again(wires: Callable[..., Wire], serve: Callable[..., Server]) -> None:
    server, wire = serve(), wires()
    assert [fetch(wire, f"http://127.0.0.1:{server.port}/a?b=c") for _ in range(3)] == [b"hello"] * 3
    assert server.accepted == 1
    head = server.heads[0]
    assert head.startswith("GET /a?b=c HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{server.port}\r\n" in head
    assert "Accept-Encoding: identity\r\n" in head
    assert "Range: bytes=0-4\r\n" in head


def test_a_connection_that_the_server_closed_meanwhile_is_replaced(
    wires: Callable[..., Wire], serve: Callable[..., Server]
) -> None:
    def once(server: Server, sock: socket.socket) -> None:
        server.read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    server, wire = serve(once), wires()
    assert [fetch(wire, f"http://127.0.0.1:{server.port}/") for _ in range(3)] == [b"hello"] * 3
    assert server.accepted == 3


def test_an_unread_body_ends_its_connection(wires: Callable[..., Wire], serve: Callable[..., Server]) -> None:
    def big(server: Server, sock: socket.socket) -> None:
        server.read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1000000))

    server, wire = serve(big), wires()
    for _ in range(2):
        with wire.get(f"http://127.0.0.1:{server.port}/", {}, Halt()) as response:
            response.receive_into(memoryview(bytearray(10)))
    assert server.accepted == 2


def test_chunked_bodies_are_read(wires: Callable[..., Wire], serve: Callable[..., Server]) -> None:
    def chunked(server: Server, sock: socket.socket) -> None:
        server.read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n")

    assert fetch(wires(), f"http://127.0.0.1:{serve(chunked).port}/") == b"hello"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", id="cut off"),
        pytest.param(b"\x16\x03\x01 what?\r\n\r\n", id="not HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", id="endless headers"),
    ],
)
def test_a_broken_answer_is_a_setback(wires: Callable[..., Wire], serve: Callable[..., Server], answer: bytes) -> None:
    def broken(server: Server, sock: socket.socket) -> None:
        server.read_head(sock)
        sock.sendall(answer)

    with pytest.raises(Setback) as caught:
        fetch(wires(), f"http://127.0.0.1:{serve(broken).port}/secret?X-Signature=abc")
    assert not isinstance(caught.value, Away)
    assert "abc" not in caught.value.text


def test_silence_is_a_setback(wires: Callable[..., Wire], serve: Callable[..., Server]) -> None:
    def silent(server: Server, sock: socket.socket) -> None:
        server.read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
        sock.recv(1)

    wire = wires(stall_timeout=0.05)
    with pytest.raises(Setback, match="stall"):
        fetch(wire, f"http://127.0.0.1:{serve(silent).port}/")


def test_a_pause_behind_the_first_bytes_costs_none_of_them(
    wires: Callable[..., Wire], serve: Callable[..., Server]
) -> None:
    go_on = threading.Event()

    def pausing(server: Server, sock: socket.socket) -> None:
        server.read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhello")
        go_on.wait(60)
        sock.sendall(bytes(99_995))

    buffer = memoryview(bytearray(1 << 20))
    with wires().get(f"http://127.0.0.1:{serve(pausing).port}/", {}, Halt()) as response:
        assert bytes(buffer[: response.receive_into(buffer)]) == b"hello"  # though there is room for more
        go_on.set()
        rest = b""
        while count := response.receive_into(buffer):
            rest += bytes(buffer[:count])
    assert rest == bytes(99_995)


def test_what_came_before_a_connection_broke_is_handed_over(
    wires: Callable[..., Wire],
    serve: Callable[..., Server],
    authority: tuple[trustme.CA, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(server: Server, sock: socket.socket) -> None:
        server.read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
        if isinstance(sock, ssl.SSLSocket):
            sock.unwrap()

    monkeypatch.setenv("SSL_CERT_FILE", str(authority[1]))
    for url in (
        f"http://localhost:{serve(broken).port}/",
        f"https://localhost:{serve(broken, tls=tls_of(authority[0])).port}/",
    ):
        buffer = memoryview(bytearray(100))
        with wires().get(url, {}, Halt()) as response:
            assert bytes(buffer[: response.receive_into(buffer)]) == b"hello"
            with pytest.raises(Setback, match="early"):
                response.receive_into(buffer)


def test_a_chunk_is_handed_over_before_the_next_one_comes(
    wires: Callable[..., Wire], serve: Callable[..., Server]
) -> None:
    go_on = threading.Event()

    def pausing(server: Server, sock: socket.socket) -> None:
        server.read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        go_on.wait(60)
        sock.sendall(b"1\r\n!\r\n0\r\n\r\n")

    buffer = memoryview(bytearray(100))
    with wires().get(f"http://127.0.0.1:{serve(pausing).port}/", {}, Halt()) as response:
        assert bytes(buffer[: response.receive_into(buffer)]) == b"hello"
        go_on.set()
        assert bytes(buffer[: response.receive_into(buffer)]) == b"!"


def test_many_pieces_are_received_at_once(
    wires: Callable[..., Wire], serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_module, "GATHER_SECONDS", 60.0)
    sent = threading.Event()

    def dripping(server: Server, sock: socket.socket) -> None:
        server.read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(1000):
            sock.sendall(b"x")
        sent.set()

    buffer = memoryview(bytearray(1 << 20))
    with wires().get(f"http://127.0.0.1:{serve(dripping).port}/", {}, Halt()) as response:
        assert sent.wait(60)
        assert response.receive_into(buffer) == 1000


def test_the_next_head_is_not_waited_for_as_a_body_is(wires: Callable[..., Wire], serve: Callable[..., Server]) -> None:
    """A head is shorter than what the thread that received a body before it was woken for."""

    def answer(server: Server, sock: socket.socket) -> None:
        while "big" in server.read_head(sock):
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000))
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        sock.recv(1)  # an end of the connection would wake it, too

    server, wire = serve(answer), wires(stall_timeout=60.0)
    assert len(fetch(wire, f"http://127.0.0.1:{server.port}/big")) == 1_000_000
    assert fetch(wire, f"http://127.0.0.1:{server.port}/small") == b"hello"
    assert server.accepted == 1


def test_nobody_there_is_away(wires: Callable[..., Wire]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(Away) as caught:
        fetch(wires(), f"http://127.0.0.1:{port}/")
    assert caught.value.reason is Reason.HUB_UNREACHABLE


def test_a_halt_ends_a_transfer_that_waits_for_bytes(wires: Callable[..., Wire], serve: Callable[..., Server]) -> None:
    halt = Halt()

    def silent(server: Server, sock: socket.socket) -> None:
        server.read_head(sock)
        halt.set()
        sock.recv(1)

    with pytest.raises((Halted, Setback)):
        fetch(wires(), f"http://127.0.0.1:{serve(silent).port}/", halt)


def test_no_more_connections_per_host_than_allowed(wires: Callable[..., Wire], serve: Callable[..., Server]) -> None:
    wire, halt = wires(connections_per_host=1), Halt()
    url = f"http://127.0.0.1:{serve().port}/"
    with wire.get(url, {}, Halt()):
        threading.Timer(0.05, halt.set).start()
        with pytest.raises(Halted):
            fetch(wire, url, halt)
    assert fetch(wire, url) == b"hello"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "http:///nohost", "https://[::1", "//host/x"])
def test_only_http_is_followed(url: str) -> None:
    with pytest.raises(Fault) as caught:
        Origin.of(url)
    assert caught.value.reason is Reason.HUB_ANSWER_UNSAFE


def test_origins() -> None:
    assert Origin.of("https://hub.example/x") == Origin("https", "hub.example", 443)
    assert Origin.of("http://Hub.example:80/x") == Origin.of("http://hub.example")
    assert Origin.of("https://hub.example") != Origin.of("http://hub.example")


# -- TLS and proxies


@pytest.fixture
def authority(tmp_path: Path) -> tuple[trustme.CA, Path]:
    made = trustme.CA()
    path = tmp_path / "ca.pem"
    made.cert_pem.write_to_path(path)
    return made, path


def tls_of(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_own_authorities_come_from_the_environment(
    wires: Callable[..., Wire],
    serve: Callable[..., Server],
    authority: tuple[trustme.CA, Path],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    server = serve(tls=tls_of(authority[0]))
    monkeypatch.setenv(variable, str(authority[1]))
    assert fetch(wires(), f"https://localhost:{server.port}/") == b"hello"


def test_an_unknown_authority_is_refused(
    wires: Callable[..., Wire],
    serve: Callable[..., Server],
    authority: tuple[trustme.CA, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = serve(tls=tls_of(authority[0]))
    with pytest.raises(Away, match="certificate"):
        fetch(wires(), f"https://localhost:{server.port}/")
    assert server.heads == []


def proxying(server: Server, sock: socket.socket) -> None:
    """CONNECT: a tunnel. GET: an answer of the proxy's own, which tells that it was asked."""
    head = server.read_head(sock)
    if not head.startswith("CONNECT"):
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nproxy")
        return
    host, _, port = head.split()[1].rpartition(":")
    with socket.create_connection((host, int(port))) as onward:
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        back = threading.Thread(target=pump, args=(onward, sock), daemon=True)
        back.start()
        pump(sock, onward)
        back.join(5)


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_https_goes_through_a_tunnel(
    wires: Callable[..., Wire],
    serve: Callable[..., Server],
    authority: tuple[trustme.CA, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, proxy = serve(tls=tls_of(authority[0])), serve(proxying)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority[1]))
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:pass%20word@127.0.0.1:{proxy.port}")
    wire = wires()
    assert fetch(wire, f"https://localhost:{server.port}/") == b"hello"
    credentials = base64.b64encode(b"user:pass word").decode()
    assert f"Proxy-Authorization: Basic {credentials}\r\n" in proxy.heads[0]
    assert "Proxy-Authorization" not in server.heads[0]


def test_http_is_asked_of_the_proxy_by_its_whole_url(
    wires: Callable[..., Wire], serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve(proxying)
    monkeypatch.setenv("http_proxy", f"127.0.0.1:{proxy.port}")
    assert fetch(wires(), "http://hub.example/a?b=c") == b"proxy"
    assert proxy.heads[0].startswith("GET http://hub.example/a?b=c HTTP/1.1\r\nHost: hub.example\r\n")


def test_hosts_of_no_proxy_are_asked_directly(
    wires: Callable[..., Wire], serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, proxy = serve(), serve(proxying)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert fetch(wires(), f"http://127.0.0.1:{server.port}/") == b"hello"
    assert proxy.heads == []


def test_a_proxy_that_refuses_is_away(
    wires: Callable[..., Wire], serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(server: Server, sock: socket.socket) -> None:
        server.read_head(sock)
        sock.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{serve(refuse).port}")
    with pytest.raises(Away, match="407"):
        fetch(wires(), "https://hub.example/")


def test_a_proxy_of_another_kind_is_refused_in_words(
    wires: Callable[..., Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(Away, match="socks5"):
        fetch(wires(), "http://hub.example/")
