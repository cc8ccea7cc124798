"""The three origins as HTTP servers: ranges, links, quotas, tokens, TLS, many connections."""

import concurrent.futures
import hashlib
import http.client
import json
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.hub.repos import Repo
from tests.integration.hub.clients import fetch

SIZE = 1000


@pytest.fixture
def repo(hub: HubEmulator) -> Repo:
    return hub.add_repo("org/name", {"README.md": "# hello", "w.bin": Random(SIZE, seed=1)})


def link_to(hub: HubEmulator, path: str = "w.bin") -> str:
    return fetch(f"{hub.endpoint}/org/name/resolve/main/{path}").headers["location"]


@pytest.mark.parametrize(
    ("asked", "status", "span"),
    [
        ("bytes=0-0", 206, (0, 1)),
        ("bytes=10-19", 206, (10, 20)),
        ("bytes=990-5000", 206, (990, 1000)),
        ("bytes=600-", 206, (600, 1000)),
        ("bytes=-7", 206, (993, 1000)),
        ("bytes=-5000", 206, (0, 1000)),
        ("bytes=1000-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=9-3", 416, None),
        ("bytes=0-1,5-6", 200, (0, 1000)),
        ("bytes=a-b", 200, (0, 1000)),
        ("lines=1-2", 200, (0, 1000)),
    ],
)
def test_ranges(hub: HubEmulator, repo: Repo, asked: str, status: int, span: tuple[int, int] | None) -> None:
    headers = {"Range": asked, "If-Range": '"whatever"', "Accept-Encoding": "gzip"}
    answer = fetch(link_to(hub), headers=headers)
    whole = repo.head.files["w.bin"].blob.path.read_bytes()
    assert answer.status == status
    assert answer.body == (whole[span[0] : span[1]] if span else b"")
    if status == 206 and span:
        assert answer.headers["content-range"] == f"bytes {span[0]}-{span[1] - 1}/{SIZE}"
    if status == 416:
        assert answer.headers["content-range"] == f"bytes */{SIZE}"
    assert "content-encoding" not in answer.headers


def test_lfs_is_redirected_to_a_signed_link(hub: HubEmulator, repo: Repo) -> None:
    for method in ("HEAD", "GET"):
        answer = fetch(f"{hub.endpoint}/org/name/resolve/main/w.bin", method=method)
        assert (answer.status, answer.body) == (302, b"")
        assert answer.headers["x-repo-commit"] == repo.head.id
        assert answer.headers["x-linked-etag"] == f'"{repo.head.files["w.bin"].blob.sha256}"'
        assert answer.headers["x-linked-size"] == str(SIZE)
        assert answer.headers["location"].startswith(f"{hub.cdn_url}/cdn/")
    data = fetch(link_to(hub))
    assert data.headers["etag"] not in (answer.headers["x-linked-etag"], None)
    assert hashlib.sha256(data.body).hexdigest() == repo.head.files["w.bin"].etag


def test_a_git_blob_goes_through_the_resolve_cache(hub: HubEmulator, repo: Repo) -> None:
    answer = fetch(f"{hub.endpoint}/org/name/resolve/main/README.md", method="HEAD")
    assert answer.status == 307
    assert answer.headers["location"].startswith(f"/api/resolve-cache/models/org/name/{repo.head.id}/README.md?")
    blob = fetch(hub.endpoint + answer.headers["location"], headers={"Range": "bytes=2-"})
    assert (blob.status, blob.body) == (206, b"hello")
    expected = hashlib.sha1(b"blob 7\0# hello").hexdigest()
    assert blob.headers["etag"] == f'"{expected}"'


def test_missing_entries_say_which_commit(hub: HubEmulator, repo: Repo) -> None:
    answer = fetch(f"{hub.endpoint}/org/name/resolve/main/absent.bin")
    assert (answer.status, answer.headers["x-error-code"]) == (404, "EntryNotFound")
    assert answer.headers["x-repo-commit"] == repo.head.id
    assert answer.headers["x-request-id"].startswith("Root=")
    assert fetch(f"{hub.endpoint}/api/models/org/name/tree/main/absent").status == 404


def test_links_expire_and_are_bound_to_their_path() -> None:
    now = [1_000_000.0]
    with HubEmulator(clock=lambda: now[0]) as hub:
        hub.add_repo("org/name", {"w.bin": b"one", "v.bin": b"two"})
        link, other = link_to(hub), link_to(hub, "v.bin")
        assert fetch(link).body == b"one"
        assert fetch(link.partition("?")[0]).status == 403
        assert fetch(f"{other.partition('?')[0]}?{link.partition('?')[2]}").status == 403
        assert fetch(link.replace("Expires=1", "Expires=2", 1)).status == 403
        now[0] += hub.signer.ttl + 1
        expired = fetch(link)
        assert (expired.status, expired.headers["content-type"]) == (403, "application/xml")
        assert fetch(link_to(hub)).status == 200
        fresh = link_to(hub)
        hub.signer.expire_all()
        assert fetch(fresh).status == 403
        assert fetch(link_to(hub)).status == 200


def test_xet_tokens_and_links_run_out() -> None:
    now = [1_000_000.0]
    with HubEmulator(clock=lambda: now[0]) as hub:
        repo = hub.add_repo("org/name", {"w.bin": Random(SIZE, seed=1)}, xet=True)
        file_hash = repo.head.files["w.bin"].xet_hash
        plan_url = f"{hub.cas_url}/v1/reconstructions/{file_hash}"

        def token() -> dict[str, str]:
            granted = fetch(f"{hub.endpoint}/api/models/org/name/xet-read-token/main").headers
            assert granted["x-xet-cas-url"] == hub.cas_url
            assert float(granted["x-xet-token-expiration"]) == now[0] + hub.cas.token_ttl
            return {"Authorization": f"Bearer {granted['x-xet-access-token']}"}

        held = token()
        plan = fetch(plan_url, headers=held)
        (fetches,) = plan.json()["fetch_info"].values()
        link = fetches[0]["url"]
        assert len(fetch(link).body) == SIZE + 8
        assert fetch(link.partition("?")[0]).status == 403
        assert fetch(plan_url).status == 401
        assert fetch(plan_url, headers={"Authorization": f"Bearer xet_{10**12}_{'0' * 32}"}).status == 401
        assert fetch(plan_url, headers={**held, "Range": f"bytes={SIZE}-"}).status == 416
        hub.cas.revoke_tokens()
        assert fetch(plan_url, headers=held).status == 401
        held = token()
        assert fetch(plan_url, headers=held).status == 200
        now[0] += hub.cas.token_ttl + 1
        assert fetch(plan_url, headers=held).status == 401
        assert fetch(link).status == 403


def test_quotas_count_per_bucket_and_caller(hub: HubEmulator, repo: Repo) -> None:
    hub.add_user("eve", "hf_eve")
    hub.limits.set("resolvers", quota=2, window=300)
    url = f"{hub.endpoint}/org/name/resolve/main/w.bin"
    first, second, refused = (fetch(url, method="HEAD") for _ in range(3))
    assert [first.status, second.status, refused.status] == [302, 302, 429]
    assert first.headers["ratelimit"].startswith('"resolvers";r=1;t=')
    assert refused.headers["ratelimit"].startswith('"resolvers";r=0;t=')
    assert refused.headers["ratelimit-policy"] == '"fixed window";"resolvers";q=2;w=300'
    assert fetch(url, headers={"Authorization": "Bearer hf_eve"}).status == 302
    assert fetch(f"{hub.endpoint}/api/models/org/name").status == 200
    hub.limits.clear()
    assert fetch(url).status == 302


def test_a_bearer_on_the_cdn_is_a_leak(hub: HubEmulator, repo: Repo) -> None:
    hub.add_user("eve", "hf_eve")
    link = link_to(hub)
    fetch(link)
    fetch(f"{hub.cas_url}/v1/reconstructions/{'0' * 64}", headers={"Authorization": "Bearer xet_1_0"})
    assert hub.journal.leaks() == []
    fetch(link, headers={"Authorization": "Bearer anything"})
    fetch(f"{hub.cas_url}/v1/reconstructions/{'0' * 64}", headers={"Authorization": "Bearer hf_eve"})
    assert [leak.origin for leak in hub.journal.leaks()] == ["cdn", "cas"]


def test_one_connection_carries_many_requests(hub: HubEmulator, repo: Repo) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", hub.origins["hub"].port, timeout=60)
    for path in ("/api/models", "/nowhere", "/org/name/resolve/main/w.bin", "/api/models/org/name"):
        connection.request("GET", path)
        before = connection.sock
        connection.getresponse().read()
        assert connection.sock is before
    connection.close()


def test_many_parallel_ranges_make_the_whole(hub: HubEmulator) -> None:
    size, parts = 64 << 20, 64
    repo = hub.add_repo("org/name", {"w.bin": Random(size, seed=2)})
    link = link_to(hub)
    step = size // parts

    def part(index: int) -> bytes:
        return fetch(link, headers={"Range": f"bytes={index * step}-{(index + 1) * step - 1}"}).body

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        digest = hashlib.sha256()
        for piece in pool.map(part, range(parts)):
            digest.update(piece)
    assert digest.hexdigest() == repo.head.files["w.bin"].etag
    sent = hub.journal.wait_for("^/cdn/", count=parts, finished=True)
    assert sum(exchange.sent for exchange in sent) == size


def test_a_thousand_connections_at_once(hub: HubEmulator, repo: Repo) -> None:
    parts = urlsplit(link_to(hub))
    request = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nConnection: close\r\n\r\n".encode()
    connections = [socket.create_connection(("127.0.0.1", parts.port or 0), timeout=60) for _ in range(1000)]
    try:
        for connection in connections:
            connection.sendall(request)
        for connection in connections:
            received = b""
            while piece := connection.recv(1 << 16):
                received += piece
            assert len(received.partition(b"\r\n\r\n")[2]) == SIZE
    finally:
        for connection in connections:
            connection.close()


def test_a_client_that_leaves_is_noticed(hub: HubEmulator) -> None:
    size = 64 << 20
    hub.add_repo("org/name", {"w.bin": Random(size, seed=2)})
    parts = urlsplit(link_to(hub))
    with socket.create_connection(("127.0.0.1", parts.port or 0), timeout=60) as connection:
        connection.sendall(f"GET {parts.path}?{parts.query} HTTP/1.1\r\n\r\n".encode())
        connection.recv(1000)
    (exchange,) = hub.journal.wait_for("^/cdn/", finished=True)
    assert 0 < exchange.sent < size


def test_https_with_an_authority_of_ones_own() -> None:
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    with HubEmulator(tls=server) as hub:
        repo = hub.add_repo("org/name", {"w.bin": Random(3 << 20, seed=1)})
        redirect = fetch(f"{hub.endpoint}/org/name/resolve/main/w.bin", tls=client)
        assert redirect.headers["location"].startswith("https://127.0.0.1:")
        data = fetch(redirect.headers["location"], tls=client)
        assert hashlib.sha256(data.body).hexdigest() == repo.head.files["w.bin"].etag


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_program_ends_on_a_signal(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "tests.hub", "--until-eof", "--throttle", "cdn=1e6"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"{")
        process.send_signal(number)
        assert process.wait(60) == 0


def test_the_program_serves_a_directory(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "org" / "name"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.txt").write_text("a")
    (folder / ".hub.json").write_text('{"gated": "auto", "downloads": 7}')
    address_file = tmp_path / "address"
    command = [sys.executable, "-m", "tests.hub", "--until-eof", "--models", str(tmp_path / "models")]
    command += ["--address-file", str(address_file), "--user", "eve:hf_eve:org/name"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        addresses = json.loads(process.stdout.readline())
        assert json.loads(address_file.read_text()) == addresses
        assert set(addresses) == {"hub", "cdn", "cas"}
        info = fetch(f"{addresses['hub']}/api/models/org/name").json()
        assert (info["gated"], info["downloads"]) == ("auto", 7)
        assert [sibling["rfilename"] for sibling in info["siblings"]] == ["sub/a.txt"]
        url = f"{addresses['hub']}/org/name/resolve/main/sub/a.txt"
        assert fetch(url).headers["x-error-code"] == "GatedRepo"
        assert fetch(url, headers={"Authorization": "Bearer hf_eve"}).status == 307
        process.stdin.close()
        assert process.wait(60) == 0
