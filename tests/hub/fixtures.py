"""Fixtures to import in a conftest: ``from tests.hub.fixtures import hub, shared_hub  # noqa: F401``."""

from collections.abc import Iterator

import pytest

from tests.hub.emulator import HubEmulator


@pytest.fixture
def hub() -> Iterator[HubEmulator]:
    """An empty Hub of the test's own."""
    with HubEmulator() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def _session_hub() -> Iterator[HubEmulator]:
    with HubEmulator() as emulator:
        yield emulator


@pytest.fixture
def shared_hub(_session_hub: HubEmulator) -> Iterator[HubEmulator]:
    """One Hub for the whole session, its faults, limits and journal cleared after each test.

    For repositories that are dear to make; give them names that no other test uses.
    """
    yield _session_hub
    _session_hub.reset()
