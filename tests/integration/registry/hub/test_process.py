"""What the gateway leaves as it is: huggingface_hub for others, proxies and certificates."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from anyio import to_thread
from huggingface_hub import HfApi, close_session
from huggingface_hub.errors import HfHubHTTPError
from slipway_service.fault import Reason

from tests.hub.emulator import HubEmulator
from tests.integration.registry.hub.client import HubClient, fault_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def fresh_session() -> Iterator[None]:
    """The process's HTTP client is made anew in the test, under its environment, and again behind it."""
    close_session()
    yield
    close_session()


async def test_others_in_the_process_see_huggingface_hub_as_it_is(hub: HubEmulator, client: HubClient) -> None:
    hub.add_repo("org/m", {"a": "1"})
    await client.tree("org/m")
    native = HfApi(endpoint=hub.endpoint, token=False)
    assert (await to_thread.run_sync(native.model_info, "org/m")).id == "org/m"
    with pytest.raises(HfHubHTTPError):
        await to_thread.run_sync(native.model_info, "org/none")


@pytest.mark.usefixtures("fresh_session")
async def test_a_proxy_of_the_environment_is_used(hub: HubEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", hub.endpoint)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    await fault_of(HubClient("http://hub.invalid", tries=1).tree("org/m"))
    (asked,) = hub.journal.requests()
    assert asked.target == "http://hub.invalid/api/models/org/m/revision/main"


@pytest.mark.usefixtures("fresh_session")
async def test_certificates_of_the_environment_are_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with HubEmulator(tls=tls) as hub:
        hub.add_repo("org/m", {"a": "1"})
        untrusted = await fault_of(HubClient(hub.endpoint, tries=1).tree("org/m"))
        assert untrusted.reason is Reason.HUB_UNREACHABLE
        assert "certificate" in untrusted.text
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        close_session()
        assert (await HubClient(hub.endpoint).tree("org/m")).files
