"""The emulators that these tests run against, and clients with empty caches."""

from pathlib import Path

import pytest

from tests.hub.emulator import HubEmulator
from tests.hub.fixtures import demo_hub, hub, session_demo_hub
from tests.integration.hub.clients import Native

__all__ = ["demo_hub", "demo_native", "hub", "native", "session_demo_hub"]


@pytest.fixture
def native(hub: HubEmulator, tmp_path: Path) -> Native:
    """huggingface_hub with an empty cache, pointed at ``hub``."""
    return Native(hub.endpoint, tmp_path / "hf")


@pytest.fixture
def demo_native(demo_hub: HubEmulator, tmp_path: Path) -> Native:
    """huggingface_hub with an empty cache, pointed at ``demo_hub``."""
    return Native(demo_hub.endpoint, tmp_path / "hf")
