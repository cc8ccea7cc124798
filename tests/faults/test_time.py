"""Clocks that jump, and processes that stand still."""

import hashlib
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count, cycle
from pathlib import Path

import anyio
import pytest
from slipway_registry.jobs.records import State
from slipway_registry.transfer.choice import Transport
from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.names import Commit, RepoId

from tests.faults.patience import PATIENT
from tests.faults.test_kill import DATA_ORIGINS, creation, registry
from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.hub.faults import Status
from tests.integration.registry.engines import engine_in

MIB = 1 << 20


class JumpingClock:
    """Wall time that is so many days off, each time it is asked; the monotonic clock is left alone."""

    def __init__(self, days: Iterator[int]) -> None:
        self._days = days

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(days=next(self._days))

    def monotonic(self) -> float:
        return anyio.current_time()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


@pytest.mark.anyio
async def test_delays_do_not_follow_a_clock_that_jumps(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {"config.json": b"{}", "model.gguf": Random(8 * MIB)})
    hub.faults.add(Status(503), "resolve/", times=12)
    async with engine_in(tmp_path, hub.endpoint, clock=JumpingClock(cycle((-2, 1, 3))), **PATIENT) as bench:
        done = await bench.fetch(repo)
        assert done.state is State.SUCCEEDED
        assert State.BACKING_OFF in bench.told.states(done.id)
        figures = bench.told.progress_of.get(done.id, [])
        assert all((progress.bytes_per_second or 0) >= 0 for progress in figures)


@pytest.mark.anyio
async def test_a_hub_that_is_away_is_waited_for_whatever_the_clock_says(hub: HubEmulator, tmp_path: Path) -> None:
    """As on a host that was asleep over the week-end: it wakes up before its network does."""
    repo = hub.add_repo("org/m", {"config.json": b"{}"})
    hub.down("hub")
    async with engine_in(tmp_path, hub.endpoint, clock=JumpingClock(count(step=2)), **PATIENT) as bench:
        created = await bench.create(repo)
        await bench.told.until(lambda: bench.told.states(created.id).count(State.BACKING_OFF) >= 6)
        hub.up("hub")
        assert (await bench.told.end(created.id)).state is State.SUCCEEDED


@pytest.mark.parametrize(
    "seconds",
    [1.5, pytest.param(60.0, marks=[pytest.mark.full, pytest.mark.timeout(180)])],
    ids=["longer than a stall", "a minute"],
)
@pytest.mark.parametrize("transport", [Transport.HTTP, Transport.XET])
def test_a_registry_that_is_stopped_goes_on(
    hub: HubEmulator, tmp_path: Path, seconds: float, transport: Transport
) -> None:
    repo = hub.add_repo("org/m", {"model.safetensors": Random(64 * MIB)}, xet=True)
    hub.throttle.set("cdn", total=60e6)
    hub.throttle.set("cas", total=60e6)
    options = ["--create", creation(repo), "--stall-timeout", "1"]
    with registry(tmp_path, hub, transport, *options) as process:
        hub.journal.wait_for(DATA_ORIGINS)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            hub.journal.wait_for("never", timeout=seconds)
        process.send_signal(signal.SIGCONT)
        assert process.wait(100) == 0
    paths = RepoPaths(tmp_path / "hub", RepoId(repo.id))
    data = (paths.snapshot(Commit(repo.head.id)) / "model.safetensors").read_bytes()
    assert hashlib.sha256(data).hexdigest() == repo.head.files["model.safetensors"].etag
