"""An emulated Hub, and the registry's side of it."""

import pytest

from tests.hub.emulator import HubEmulator
from tests.hub.fixtures import hub
from tests.integration.registry.hub.client import HubClient

__all__ = ["client", "hub"]


@pytest.fixture
def client(hub: HubEmulator) -> HubClient:
    """A client of `hub` with ordinary settings."""
    return HubClient(hub.endpoint)
