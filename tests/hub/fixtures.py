"""Fixtures to import in a conftest.

A session-scoped one is split in two, so that what a test leaves behind is cleared: import both names, as in
``from tests.hub.fixtures import demo_hub, hub, session_demo_hub`` with all of them in ``__all__``.
"""

from collections.abc import Iterator

import pytest

from tests.hub.emulator import HubEmulator
from tests.hub.models.demo import demo_repos


@pytest.fixture
def hub() -> Iterator[HubEmulator]:
    """An empty Hub of the test's own."""
    with HubEmulator() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def session_demo_hub() -> Iterator[HubEmulator]:
    """What `demo_hub` serves; not for tests."""
    with HubEmulator() as emulator:
        demo_repos(emulator)
        yield emulator


@pytest.fixture
def demo_hub(session_demo_hub: HubEmulator) -> Iterator[HubEmulator]:
    """The demo's repositories, not to be changed; faults, limits and journal are cleared after each test."""
    yield session_demo_hub
    session_demo_hub.reset()
