"""A registry in a company's network: all it asks for goes through the proxy, and the company's authority is trusted."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from tests.e2e.stack import BIN, Stack
from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.integration.hub.clients import run
from tests.integration.registry.proxy import forward_proxy

MIB = 1 << 20
TOKEN = "hf_ann"
NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
TRUST = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, *map(str.upper, NAMES), *TRUST):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def registry(directory: Path, hub: HubEmulator, transport: str, environment: Mapping[str, str]) -> Iterator[Stack]:
    """A registry in a process of its own, under these variables."""
    own = {"HF_TOKEN": TOKEN, **environment}
    stack = Stack(directory, hub.endpoint, f"--transport={transport}", "--disk-reserve=0", environment=own)
    stack.registry.start()
    try:
        yield stack
    finally:
        assert stack.registry.stop() == 0


def pull(stack: Stack) -> None:
    """Download a model through the registry."""
    direct = {**stack.environment, "SLIPWAY_REGISTRY": stack.registry.address, "NO_PROXY": "127.0.0.1"}
    done = run([str(BIN / "slipway"), "pull", "org/m"], direct)
    assert done.returncode == 0, done.stderr + stack.registry.log


@pytest.mark.parametrize("transport", ["HTTP", "XET"])
def test_every_request_goes_through_the_proxy(hub: HubEmulator, tmp_path: Path, transport: str) -> None:
    hub.add_user("ann", TOKEN, access=["org/m"])
    hub.add_repo("org/m", {"config.json": b"{}", "model.safetensors": Random(8 * MIB)}, xet=True, private=True)
    with forward_proxy() as proxy, registry(tmp_path, hub, transport, {"HTTP_PROXY": proxy.url}) as stack:
        pull(stack)
    origins = {exchange.origin for exchange in hub.journal.requests()}
    assert origins == {"hub", "cdn" if transport == "HTTP" else "cas"}
    assert len(proxy.asked) == len(hub.journal.requests())  # and nothing past it
    assert hub.journal.leaks() == []


@pytest.mark.parametrize(
    ("transport", "variable"),
    [
        pytest.param("HTTP", "SSL_CERT_FILE", marks=pytest.mark.full),
        ("HTTP", "REQUESTS_CA_BUNDLE"),
        ("XET", "REQUESTS_CA_BUNDLE"),
    ],
)
def test_a_companys_authority_is_trusted_by_all_that_is_asked(tmp_path: Path, transport: str, variable: str) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with HubEmulator(tls=tls) as hub:
        hub.add_user("ann", TOKEN, access=["org/m"])
        hub.add_repo("org/m", {"config.json": b"{}", "model.safetensors": Random(8 * MIB)}, xet=True, private=True)
        with registry(tmp_path, hub, transport, {variable: str(tmp_path / "ca.pem")}) as stack:
            pull(stack)
        assert hub.journal.requests(origin="cdn" if transport == "HTTP" else "cas")
        assert hub.journal.leaks() == []
