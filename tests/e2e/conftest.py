"""One stack for the tests that leave it as they found it, and fresh ones for those that kill it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stack import Stack
from tests.hub.process import HubProcess

SECONDS = 600
"""For a whole test: each of its commands starts an interpreter, and some a backend."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test here that time."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.fixture(scope="session")
def hub_endpoint() -> Iterator[str]:
    """An emulated Hub with the models of the demo, in a process of its own."""
    with HubProcess("--demo") as hub:
        yield hub.endpoint


@pytest.fixture(scope="module")
def stack(hub_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A registry and a runner, shared by the tests of a module."""
    yield from _running(tmp_path_factory.mktemp("stack"), hub_endpoint)


@pytest.fixture
def own_stack(hub_endpoint: str, tmp_path: Path) -> Iterator[Stack]:
    """A registry and a runner for one test alone."""
    yield from _running(tmp_path, hub_endpoint)


def _running(directory: Path, endpoint: str) -> Iterator[Stack]:
    stack = Stack(directory, endpoint)
    stack.start()
    try:
        yield stack
    finally:
        stack.stop()
