from pathlib import Path

import pytest

from tests.hub.emulator import HubEmulator
from tests.integration.registry.preload.program import Build


@pytest.fixture
def build(hub: HubEmulator, tmp_path: Path) -> Build:
    """An image build that sees the emulated Hub."""
    return Build(directory=tmp_path, endpoint=hub.endpoint)
