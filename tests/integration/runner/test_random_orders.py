"""Random calls and random deaths, on real processes: no model is ever stuck, doubled, or left behind."""

import os
import random
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from slipway_runner.models.states import State
from slipway_runner.process import members, proc
from slipway_service.fault import Fault, Reason

from tests.integration.runner.fakes import ANXIOUS, Bench, FakeBackend, bench, running

pytestmark = pytest.mark.anyio

IDS = ("a", "b", "c")
BEHAVIOURS: tuple[Mapping[str, Any], ...] = (
    {},
    {"children": [{"setsid": True}, {"stubborn": True}]},
    {"fail": 3},
    {"stubborn": True},
    {"hang": True},
    {"lines": ["SHARDS 1/2", "SHARDS 2/2"], "line_pause": 0.05},
    {"exit_once_loaded": 0},
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_it_ends(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    async with bench(tmp_path, numbers=replace(ANXIOUS, budget=3), backend=FakeBackend(patience=1.0)) as on:
        everybody: set[int] = set()
        for _ in range(40):
            model_id = dice.choice(IDS)
            with suppress(Fault):
                await act(on, dice, model_id)
            assert_one_process_each(on, everybody)
            with anyio.move_on_after(dice.choice((0.0, 0.02, 0.1))):
                await anyio.sleep_forever()
        for model in on.fleet.list():
            on.fleet.unload(model.id)
        with anyio.fail_after(60):
            while models := on.fleet.list():
                leaked = [model for model in models if model.error and model.error.reason is Reason.LEAKED]
                assert not leaked
                for model in models:
                    on.fleet.unload(model.id)
                await anyio.sleep(0.05)
        assert [pid for pid in everybody if running(pid)] == []
        assert not members.tagged((tmp_path / "state" / "instance").read_text())
        for model_id in IDS:
            if states := on.seen.states(model_id):
                assert states[-1] is State.UNLOADED


async def act(on: Bench, dice: random.Random, model_id: str) -> None:
    match dice.choice(("load", "load", "load", "unload", "kill", "kill", "stop", "continue")):
        case "load":
            on.backend.behaviours[model_id] = dice.choice(BEHAVIOURS)
            await on.fleet.load(on.spec(start_timeout=0.5), model_id)
        case "unload":
            on.fleet.unload(model_id)
        case "kill":
            signal_one(on, dice, model_id, dice.choice((signal.SIGKILL, signal.SIGTERM)))
        case "stop":
            signal_one(on, dice, model_id, signal.SIGSTOP)
        case _:
            signal_one(on, dice, model_id, signal.SIGCONT)


def signal_one(on: Bench, dice: random.Random, model_id: str, number: signal.Signals) -> None:
    attached = on.fleet.supervisor(model_id).attached
    if attached is not None and (found := members.find(attached.running.family).all):
        with suppress(ProcessLookupError):
            os.kill(dice.choice(found).pid, number)


def assert_one_process_each(on: Bench, everybody: set[int]) -> None:
    instance = (on.root.parent / "state" / "instance").read_text()
    families = {tag: found for tag, found in members.tagged(instance).items() if found}
    everybody |= {one.pid for found in families.values() for one in found}
    uids = [tag.rpartition(".")[0] for tag in families if any(proc.alive(one) for one in families[tag])]
    assert len(uids) == len(set(uids)), f"two sets of processes for one model: {families}"
