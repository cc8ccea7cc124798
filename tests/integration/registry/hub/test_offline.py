"""Offline there is no request: not to the Hub, not to anyone."""

import pytest
from slipway_registry.hub.credentials import ANONYMOUS
from slipway_registry.hub.settings import HubSettings
from slipway_service.fault import Reason
from slipway_service.weights.names import Commit, FilePath, RepoId

from tests.hub.emulator import HubEmulator
from tests.integration.registry.hub.client import HubClient, caller, fault_of

pytestmark = pytest.mark.anyio

REPO = RepoId("org/m")


@pytest.mark.parametrize(
    "environment", [{"HF_HUB_OFFLINE": "1"}, {"TRANSFORMERS_OFFLINE": "1"}, {"HF_ALLOW_REMOTE_MODELS": "false"}]
)
async def test_no_method_makes_a_request(
    hub: HubEmulator, environment: dict[str, str], no_network: list[object]
) -> None:
    because = HubSettings.from_environment(environment).offline
    client = HubClient(hub.endpoint, offline=because)
    metadata, commit = client.metadata, Commit("c" * 40)
    for call in (
        client.search(),
        client.tree(REPO),
        client.tree(REPO, commit, caller("hf_ann")),
        client.get(REPO),
        metadata.refs(REPO, ANONYMOUS),
        metadata.check_access(REPO, ANONYMOUS),
        metadata.read(REPO, commit, FilePath("a"), 10, ANONYMOUS),
    ):
        fault = await fault_of(call)
        assert fault.reason is Reason.OFFLINE
        assert because in fault.text
    assert no_network == []
    assert hub.journal.requests() == []


async def test_the_guard_would_notice(hub: HubEmulator, no_network: list[object]) -> None:
    assert (await fault_of(HubClient(hub.endpoint, tries=1).tree(REPO))).reason is Reason.HUB_UNREACHABLE
    assert no_network
