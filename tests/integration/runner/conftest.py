"""No backend outlives its test, even one that failed."""

import signal
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from slipway_runner.models.stall import StallTimer
from slipway_runner.process import cgroup, members, pidfd

from tests.integration.runner.fakes import Clock


@pytest.fixture(autouse=True)
def _nothing_left_behind(tmp_path: Path) -> Iterator[None]:
    yield
    for file in tmp_path.rglob("instance"):
        instance = file.read_text().strip()
        left = [process for family in members.tagged(instance).values() for process in family]
        for process in left:
            pidfd.send(process, signal.SIGKILL)
        root = cgroup.find_root(instance)
        for found in cgroup.others(root, keep=()):
            cgroup.kill(found)
            cgroup.remove(found)
        if root is not None:
            cgroup.remove(root)


@pytest.fixture(params=["cgroups where the host has them", "no cgroups"])
def with_and_without_cgroups(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cgroup would hold must be found without one, too: most users may not make any."""
    if request.param == "no cgroups":
        monkeypatch.setattr("slipway_runner.models.fleet.cgroup.find_root", lambda _: None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of runs and of their stall timers."""
    clock, verdict = Clock(), StallTimer.verdict

    def look(timer: StallTimer, now: float) -> str | None:
        clock.looks += 1
        return verdict(timer, now)

    monkeypatch.setattr(anyio, "current_time", lambda: clock.now)
    monkeypatch.setattr(StallTimer, "verdict", look)
    return clock


@pytest.fixture
def patient_adoption(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is found and that the machine does not run for a while is not taken for a silent one."""
    monkeypatch.setattr("slipway_runner.models.adoption._ANSWER_SECONDS", 20.0)
