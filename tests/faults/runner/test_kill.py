"""A host on which the runner, a backend or a part of one is killed at any moment, under streams through its gateway."""

import os
import random
import signal
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import anyio
import pytest
from slipway.runner.v1.model_pb2 import Model, ModelState

from tests.faults.runner.clients import Client, until_flowing
from tests.faults.runner.host import PROCESSES, RunnerHost, is_loaded

pytestmark = pytest.mark.anyio

RIGHT_SECONDS = 2.0
"""From the first answer of a runner that was started again to every model being in the state that is right for it, in
the median: a host that is busy with something else holds up some.
"""

PATIENCE = 30.0

ON_THEIR_WAY = {
    ModelState.MODEL_STATE_RESTARTING,
    ModelState.MODEL_STATE_LOADING,
    ModelState.MODEL_STATE_LOADED,
}
MEMORY = Path("/dev/shm")

WHAT_STAYS = {"instance", "holder", "history.json", "journal", "lock", "models"}
"""In a state directory after a clean stop, for the next runner."""

VICTIMS = ("runner", "llama", "tree", "part of tree", "runner and llama", "runner and part of tree")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: on a disk that other programs keep busy even a write without a sync may
    take a second, and what a runner has done in that second is lost with it (docs/decisions/0005).
    """
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


def pids_of(host: RunnerHost, model: Model) -> list[int]:
    """The leader first."""
    (family,) = (found for tag, found in host.families().items() if tag.startswith(f"{model.uid}."))
    return sorted((one.pid for one in family), key=lambda pid: pid != model.pid)


def strike(host: RunnerHost, victim: str, models: dict[str, Model], moments: random.Random) -> set[str]:
    """SIGKILL. Returns the models that cannot go on as they were."""
    struck: set[str] = set()
    for one in victim.split(" and "):
        name = one.rpartition(" ")[2]
        if name == "runner":
            host.service.kill()
            continue
        leader, *others = pids_of(host, models[name])
        with suppress(ProcessLookupError):
            os.kill(moments.choice(others) if one.startswith("part") else leader, signal.SIGKILL)
        struck.add(name)
    return struck


async def until_right(host: RunnerHost, before: dict[str, Model], struck: set[str]) -> float:
    """What was not struck is LOADED with the same processes; what was is on its way. Seconds until then."""
    began = anyio.current_time()

    def right(now: dict[str, Model]) -> bool:
        return set(now) == set(before) and all(
            _right(model, now[name], struck=name in struck) for name, model in before.items()
        )

    now = await host.models()
    with anyio.move_on_after(PATIENCE):
        while not right(now):
            now = await host.models()
    assert right(now), (struck, before, now, host.service.log[-5000:])
    return anyio.current_time() - began


def _right(before: Model, now: Model, *, struck: bool) -> bool:
    if struck:
        return now.state in ON_THEIR_WAY and now.uid == before.uid and now.pid != before.pid
    return is_loaded(now) and (now.uid, now.pid) == (before.uid, before.pid)


@pytest.mark.parametrize(
    "kills", [7, pytest.param(100, marks=[pytest.mark.full, pytest.mark.timeout(900)])], ids=["few", "many"]
)
async def test_killed_at_any_moment(root: Path, kills: int) -> None:
    host = RunnerHost(root)
    moments = random.Random(kills)
    clients = [Client("llama", 64), Client("tree", 200), Client("tree", 50)]
    order = [VICTIMS[number % len(VICTIMS)] for number in range(kills)]
    moments.shuffle(order)
    try:
        await host.start()
        await host.load_all()
        async with aiohttp.ClientSession() as session, anyio.create_task_group() as tasks:
            for client in clients:
                tasks.start_soon(client.stream_for_ever, host.gateway, session)
            took = [await kill_and_recover(host, victim, clients, moments) for victim in order]
            tasks.cancel_scope.cancel()
        assert any(client.ended for client in clients)
        assert statistics.median(took) <= RIGHT_SECONDS, sorted(took)
        assert host.service.stop() == 0, host.service.log
    finally:
        if host.service.process is not None and host.service.process.poll() is None:
            host.service.stop()
        left = host.end()
    assert left == []
    assert host.families() == {}
    assert host.gateways() == []
    assert host.about() == set()
    assert {path.name for path in host.service.state.iterdir()} <= WHAT_STAYS
    assert [path.name for path in (host.service.state / "models").iterdir()] == []


async def kill_and_recover(host: RunnerHost, victim: str, clients: list[Client], moments: random.Random) -> float:
    """One kill, and what must follow. Seconds until all was right."""
    before = await host.until_loaded()
    assert set(before) == set(PROCESSES)
    await until_flowing(clients)
    await anyio.sleep(moments.uniform(0, 0.3))
    struck = strike(host, victim, before, moments)
    if "runner" in victim:
        await host.start()
    took = await until_right(host, before, struck)
    after = await host.until_loaded()
    host.assert_no_orphan(after)
    unharmed = [client for client in clients if client.model not in struck]
    assert [client.faults for client in unharmed] == [[] for _ in unharmed], victim
    return took
