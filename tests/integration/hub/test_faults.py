"""Every fault as a raw client sees it."""

import http.client
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.hub.faults import (
    ContentLength,
    ContentRange,
    Corrupt,
    Delay,
    ExpireLinks,
    Fault,
    Headers,
    HoldAfter,
    IgnoreRange,
    Reset,
    Slow,
    StallAfter,
    Status,
    Truncate,
)
from tests.hub.files import FileSpec
from tests.hub.process import HubProcess
from tests.hub.rules import Rule
from tests.integration.hub.clients import fetch

SIZE = 300_000


@pytest.fixture
def link(hub: HubEmulator) -> str:
    """A signed link to SIZE bytes."""
    hub.add_repo("org/name", {"w.bin": Random(SIZE, seed=1)})
    return resolve(hub)


@pytest.fixture
def content(hub: HubEmulator, link: str) -> bytes:
    return hub.catalogue.repos["org/name"].head.files["w.bin"].blob.path.read_bytes()


def resolve(hub: HubEmulator, path: str = "w.bin") -> str:
    return fetch(f"{hub.endpoint}/org/name/resolve/main/{path}").headers["location"]


def read_until_error(url: str, *, patient_for: int) -> tuple[int, str]:
    """Body bytes that arrive, and how it ends: the exception's name, or ``end``.

    Before so many bytes have come none is waited for in vain, however long it takes.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60 if patient_for else 0.5)
    received = 0
    try:
        connection.request("GET", f"{parts.path}?{parts.query}")
        sock = connection.sock
        response = connection.getresponse()
        while piece := response.read1(1 << 16):
            received += len(piece)
            if received == patient_for:
                sock.settimeout(0.5)
    except (OSError, http.client.HTTPException) as error:
        return received, type(error).__name__
    finally:
        connection.close()
    return received, "end"


def test_status_with_headers(hub: HubEmulator, link: str) -> None:
    hub.faults.add(Status(503, {"Retry-After": "7"}), origin="cdn", times=1)
    answer = fetch(link)
    assert (answer.status, answer.headers["retry-after"]) == (503, "7")
    assert fetch(link).status == 200


@pytest.mark.parametrize(
    ("fault", "ending"),
    [
        (Reset(), (0, "ConnectionResetError")),
        (Reset(after=0), (0, "ConnectionResetError")),
        (Reset(after=100_000), (100_000, "ConnectionResetError")),
        (Truncate(after=100_000), (100_000, "end")),
        (ContentLength(delta=+10), (SIZE, "end")),
        (ContentLength(delta=-10, cut=True), (SIZE - 10, "end")),
        (StallAfter(after=100_000), (100_000, "TimeoutError")),
        (Delay(None), (0, "TimeoutError")),
        (Delay(0.01), (SIZE, "end")),
        (StallAfter(after=100_000, seconds=0.01), (SIZE, "end")),
        (Slow(rate=50_000_000), (SIZE, "end")),
    ],
    ids=repr,
)
def test_how_the_body_ends(hub: HubEmulator, link: str, fault: Fault, ending: tuple[int, str]) -> None:
    hub.faults.add(fault, origin="cdn")
    received, how = ending
    assert read_until_error(link, patient_for=received if how == "TimeoutError" else SIZE + 1) == ending


def test_a_truncated_body_still_claims_its_length(hub: HubEmulator, link: str) -> None:
    hub.faults.add(Truncate(after=5), origin="cdn")
    with pytest.raises(http.client.IncompleteRead):
        fetch(link)


def test_a_short_content_length_leaves_bytes_behind(hub: HubEmulator, link: str) -> None:
    hub.faults.add(ContentLength(delta=-10), origin="cdn")
    parts = urlsplit(link)
    with socket.create_connection((parts.hostname, parts.port or 0), timeout=60) as connection:
        connection.sendall(f"GET {parts.path}?{parts.query} HTTP/1.1\r\n\r\n".encode())
        received = b""
        while piece := connection.recv(1 << 16):
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    assert f"Content-Length: {SIZE - 10}".encode() in head
    assert len(body) == SIZE


def test_one_corrupt_byte_at_an_absolute_offset(hub: HubEmulator, link: str, content: bytes) -> None:
    rule = hub.faults.add(Corrupt(offset=150_000), origin="cdn", times=1)
    assert fetch(link, headers={"Range": "bytes=0-149999"}).body == content[:150_000]
    assert fetch(link, method="HEAD").status == 200
    assert rule.struck == 0
    damaged = fetch(link, headers={"Range": "bytes=149999-150001"}).body
    assert damaged == content[149_999:150_000] + bytes([content[150_000] ^ 0xFF]) + content[150_001:150_002]
    assert fetch(link).body == content


def test_an_ignored_range(hub: HubEmulator, link: str, content: bytes) -> None:
    hub.faults.add(IgnoreRange(), origin="cdn")
    answer = fetch(link, headers={"Range": "bytes=100-199"})
    assert (answer.status, answer.body) == (200, content)
    assert "content-range" not in answer.headers


def test_a_wrong_content_range(hub: HubEmulator, link: str, content: bytes) -> None:
    hub.faults.add(ContentRange(shift=50), origin="cdn")
    answer = fetch(link, headers={"Range": "bytes=100-199"})
    assert answer.headers["content-range"] == f"bytes 150-249/{SIZE}"
    assert answer.body == content[100:200]


def test_expired_links_at_both_ends(hub: HubEmulator, link: str) -> None:
    on_the_cdn = hub.faults.add(ExpireLinks(), origin="cdn", times=1)
    assert fetch(link).status == 403
    assert on_the_cdn.struck == 1
    assert fetch(link).status == 200
    hub.faults.add(ExpireLinks(), r"/resolve/", origin="hub", times=1)
    answer = fetch(resolve(hub))
    assert answer.status == 403
    assert b"Request has expired" in answer.body
    assert fetch(resolve(hub)).status == 200


def test_hostile_names_and_etags(hub: HubEmulator) -> None:
    hostile = ["../../x", "/etc/passwd", "a\0b", "a\\b", "..", "sub/../../y", "\u202egnp"]
    files = {name: FileSpec(source=b"x") for name in hostile}
    hub.add_repo("org/evil", {**files, "w.bin": FileSpec(source=b"w", etag="../../etag", size=-1)})
    tree = fetch(f"{hub.endpoint}/api/models/org/evil/tree/main?recursive=true").json()
    entries = {entry["path"]: entry for entry in tree if entry["type"] == "file"}
    assert set(hostile) < set(entries)
    assert entries["w.bin"]["lfs"]["oid"] == "../../etag"
    assert entries["w.bin"]["size"] == -1
    head = fetch(f"{hub.endpoint}/org/evil/resolve/main/w.bin", method="HEAD")
    assert (head.headers["x-linked-etag"], head.headers["x-linked-size"]) == ('"../../etag"', "-1")


def test_headers_of_a_resolve_can_lie(hub: HubEmulator, link: str) -> None:
    hub.faults.add(Headers({"x-linked-etag": '"zz"', "Location": "file:///etc/passwd"}), "/resolve/")
    answer = fetch(f"{hub.endpoint}/org/name/resolve/main/w.bin", method="HEAD")
    assert answer.headers["x-linked-etag"] == '"zz"'
    assert answer.headers["location"] == "file:///etc/passwd"


def test_rules_count_and_narrow_down(hub: HubEmulator, link: str) -> None:
    rule = hub.faults.add(Status(500), r"^/cdn/", origin="cdn", method="GET", skip=1, times=2)
    assert [fetch(link).status for _ in range(4)] == [200, 500, 500, 200]
    assert fetch(link, method="HEAD").status == 200
    assert (rule.seen, rule.struck) == (4, 2)
    hub.faults.remove(rule)
    assert hub.faults.all() == []


def test_several_faults_strike_together(hub: HubEmulator, link: str, content: bytes) -> None:
    hub.faults.add(Corrupt(offset=3), origin="cdn")
    hub.faults.add(Truncate(after=10), origin="cdn")
    with pytest.raises(http.client.IncompleteRead) as cut:
        fetch(link)
    assert cut.value.partial == content[:3] + bytes([content[3] ^ 0xFF]) + content[4:10]
    (exchange,) = hub.journal.wait_for("^/cdn/", count=1, finished=True)
    assert exchange.faults == ("corrupt", "truncate")
    assert exchange.sent == 10


def test_an_origin_goes_down_and_comes_back(hub: HubEmulator, link: str) -> None:
    hub.faults.add(StallAfter(after=10), origin="cdn", times=1)
    with socket.create_connection(("127.0.0.1", hub.origins["cdn"].port), timeout=60) as connection:
        parts = urlsplit(link)
        connection.sendall(f"GET {parts.path}?{parts.query} HTTP/1.1\r\n\r\n".encode())
        hub.journal.wait_for("^/cdn/")
        hub.down("cdn")
        while connection.recv(1 << 16):
            pass
    with pytest.raises(ConnectionRefusedError):
        fetch(link)
    hub.up("cdn")
    assert fetch(link).status == 200


def test_another_process_sets_faults_and_reads_the_journal() -> None:
    with HubProcess() as hub:
        commit = hub.add_repo("org/name", {"a.txt": "a", "w.bin": {"random": 1000, "seed": 1}}, xet=False)
        url = f"{hub.endpoint}/org/name/resolve/{commit}/w.bin"
        hub.add_fault(Rule(fault=Status(429, {"RateLimit": '"resolvers";r=0;t=5'}), path="/resolve/", times=1))
        assert fetch(url).headers["ratelimit"] == '"resolvers";r=0;t=5'
        hub.add_fault(Rule(fault=Reset(after=10), origin="cdn"))
        link = fetch(url).headers["location"]
        with pytest.raises(ConnectionResetError):
            fetch(link, headers={"Authorization": "Bearer leaked"})
        hub.clear_faults()
        assert len(fetch(link).body) == 1000
        seen = [(entry["origin"], entry["status"], entry["faults"]) for entry in hub.journal()]
        assert seen == [
            ("hub", 429, ["status"]),
            ("hub", 302, []),
            ("cdn", 200, ["reset"]),
            ("cdn", 200, []),
        ]
        assert hub.journal()[2]["headers"]["authorization"] == "Bearer leaked"
        hub.clear_journal()
        assert hub.journal() == []


@pytest.mark.parametrize(
    "post",
    [
        lambda hub: hub._call("POST", "/__faults", {"action": "explode"}),
        lambda hub: hub._call("POST", "/__faults", {"action": "status", "rate": 1}),
        lambda hub: hub._call("POST", "/__nothing", {}),
    ],
)
def test_a_wrong_administrative_request_is_refused(post: Callable[[HubProcess], object]) -> None:
    with HubProcess() as hub, pytest.raises(OSError, match="400"):
        post(hub)


def test_what_is_held_goes_on_when_it_is_released(hub: HubEmulator, link: str, content: bytes) -> None:
    hold = HoldAfter(after=100_000)
    hub.faults.add(hold, origin="cdn")
    parts = urlsplit(link)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    connection.request("GET", f"{parts.path}?{parts.query}")
    response = connection.getresponse()
    assert response.read(100_000) == content[:100_000]
    (exchange,) = hub.journal.requests("^/cdn/")
    assert (exchange.sent, exchange.finished) == (100_000, False)
    with pytest.raises(TimeoutError, match="had ended"):
        hub.journal.over("^/cdn/", timeout=0)
    hold.release()
    assert response.read() == content[100_000:]
    connection.close()
    (exchange,) = hub.journal.over("^/cdn/")
    assert exchange.sent == SIZE
    assert fetch(link).body == content
