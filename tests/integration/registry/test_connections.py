"""How many connections a file is fetched over: one, and more where the link and not this machine is slow."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from slipway_registry.hub.credentials import ANONYMOUS
from slipway_registry.hub.rate import RateBudget
from slipway_registry.transfer.effort import Effort
from slipway_registry.transfer.halt import Halt, Halted
from slipway_registry.transfer.http import HttpFetch
from slipway_registry.transfer.links import HubFile, HubLimits
from slipway_registry.transfer.partial import Partial
from slipway_registry.transfer.parts import FIRST_LOOK, Counters
from slipway_registry.transfer.persist import Patience
from slipway_registry.transfer.wire import Wire
from slipway_service.weights.names import Commit, FilePath, RepoId

from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.hub.faults import StallAfter

MIB = 1 << 20
SIZE = 32 * MIB
CONNECTIONS = 3


@pytest.fixture
def fetch(hub: HubEmulator) -> Iterator[HttpFetch]:
    """Fetches a file."""
    repo = hub.add_repo("org/m", {"model.gguf": Random(SIZE)})
    wire = Wire()
    yield HttpFetch(
        wire=wire,
        file=HubFile(
            endpoint=hub.endpoint, repo=RepoId("org/m"), commit=Commit(repo.head.id), path=FilePath("model.gguf")
        ),
        credential=lambda: ANONYMOUS,
        limits=HubLimits(RateBudget()),
        patience=Patience(lambda _: None, 0.0),
        connections=CONNECTIONS,
    )
    wire.close()


class Busy(Effort):
    """A machine of which the connections take two cores, whatever they do."""

    @property
    def seconds(self) -> float:
        return 2 * time.monotonic()


class Peak(Counters):
    """Remembers how many connections there were at once."""

    peak = 0

    def __setattr__(self, name: str, value: int) -> None:
        super().__setattr__(name, value)
        if name == "connections":
            self.peak = max(self.peak, value)


def test_more_come_where_bytes_do_not(hub: HubEmulator, fetch: HttpFetch, tmp_path: Path) -> None:
    hub.faults.add(StallAfter(MIB), origin="cdn")
    halt = Halt()

    def run() -> None:
        with contextlib.suppress(Halted):
            fetch(partial, halt, Counters())

    with Partial.open(tmp_path / "p", SIZE) as partial:
        thread = threading.Thread(target=run)
        thread.start()
        try:
            hub.journal.wait_for("/cdn/", count=CONNECTIONS)
        finally:
            halt.set()
            thread.join()


def test_one_is_enough_where_this_machine_is_slow(hub: HubEmulator, fetch: HttpFetch, tmp_path: Path) -> None:
    hub.throttle.set("cdn", total=SIZE / (4 * FIRST_LOOK))
    fetch.wire.effort = Busy()
    counters = Peak()
    with Partial.open(tmp_path / "p", SIZE) as partial:
        fetch(partial, Halt(), counters)
        assert partial.frontier.done == SIZE
    assert counters.peak == 1
