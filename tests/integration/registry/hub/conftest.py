"""An emulated Hub, and the registry's side of it."""

import pytest

from tests.hub.emulator import HubEmulator
from tests.hub.fixtures import hub
from tests.integration.registry.hub.client import HubClient
from tests.integration.registry.network import no_network

__all__ = ["client", "hub", "no_network"]


@pytest.fixture
def client(hub: HubEmulator) -> HubClient:
    """A client of `hub` with ordinary settings."""
    return HubClient(hub.endpoint)
