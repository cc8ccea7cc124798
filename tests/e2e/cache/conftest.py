"""A real registry whose cache is empty before and after each test, and an emulated Hub."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from slipway_client.sync import SyncRegistry

from tests.e2e.cache.commands import CHAT, COPY, MIB
from tests.e2e.stack import Stack
from tests.hub.content import Random, Source
from tests.hub.emulator import HubEmulator


@pytest.fixture(scope="module")
def filled_hub() -> Iterator[HubEmulator]:
    """Two repositories that share their weights."""
    with HubEmulator() as hub:
        weights: dict[str, Source] = {
            "chat-Q4_K_M.gguf": Random(2 * MIB, 4),
            "chat-Q8_0.gguf": Random(4 * MIB, 8),
        }
        hub.add_repo(CHAT, {"README.md": "read me", **weights})
        hub.add_repo(COPY, {"README.md": "read me", **weights, "more.txt": "more"})
        yield hub


@pytest.fixture
def hub(filled_hub: HubEmulator) -> Iterator[HubEmulator]:
    """The same, without what another test did to it: only the README may have changed."""
    yield filled_hub
    filled_hub.reset()
    filled_hub.throttle.clear()


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("roots")


@pytest.fixture(scope="module")
def shared(filled_hub: HubEmulator, roots: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("cache"), filled_hub.endpoint, f"--export-roots={roots}")
    stack.start()
    try:
        yield stack
    finally:
        stack.stop()


@pytest.fixture
def stack(hub: HubEmulator, shared: Stack) -> Iterator[Stack]:
    """With an empty cache before and after."""
    hub.journal.clear()
    yield shared
    with SyncRegistry.connect(shared.registry.address) as registry:
        for pin in registry.list_pins():
            registry.unpin_snapshot(pin.name)
        registry.prune_cache(quota_bytes=0)
        assert registry.list_snapshots() == []
