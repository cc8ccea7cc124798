"""Backends that end, fall silent or lose a part of themselves."""

import os
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from slipway_runner.models.scan import MemberScan
from slipway_runner.models.states import RestartPolicy, State
from slipway_runner.process.members import Family
from slipway_runner.process.proc import ProcessId
from slipway_service.fault import Reason

from tests.integration.runner.fakes import ANXIOUS, QUICK, Bench, FakeBackend, bench, control, pids_of, running

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
async def test_a_killed_backend_is_started_again_under_the_same_uid(tmp_path: Path, number: signal.Signals) -> None:
    async with bench(tmp_path) as on:
        first = await on.load()
        os.kill(first.pid, number)
        restarting = await on.seen.state(State.RESTARTING)
        assert restarting.retry_time is not None
        assert restarting.exit is not None
        assert restarting.exit.signal is number
        assert restarting.error is not None
        assert restarting.active
        again = await on.seen.state(State.LOADED)
        assert again.uid == first.uid
        assert again.pid != first.pid
        assert (again.attempt, again.restart_count) == (2, 1)
        assert again.active
        assert again.error is None
        assert on.seen.states() == [
            State.LOADING,
            State.LOADED,
            State.RESTARTING,
            State.LOADING,
            State.LOADED,
        ]


async def test_an_exit_with_code_0_is_an_exit_too(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        model = await on.load()
        await control(model, exit=0)
        restarting = await on.seen.state(State.RESTARTING)
        assert restarting.exit is not None
        assert restarting.exit.code == 0
        await on.seen.state(State.LOADED)


async def test_what_the_backend_said_is_the_reason(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        model = await on.load()
        await control(model, say="CAUSE the engine died of an unknown illness", exit=0)
        restarting = await on.seen.state(State.RESTARTING)
        assert restarting.error is not None
        assert restarting.error.reason is Reason.BACKEND_ENGINE_DEAD
        assert "unknown illness" in restarting.error.text


@pytest.mark.usefixtures("with_and_without_cgroups")
async def test_the_rest_of_a_crashed_tree_is_ended_before_the_next_start(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        model = await on.load(behave={"children": [{"stubborn": True}, {"setsid": True, "stubborn": True}]})
        leader, *children = await pids_of(model)
        os.kill(leader, signal.SIGKILL)
        await on.seen.state(State.RESTARTING)
        await on.seen.state(State.LOADING)
        assert [pid for pid in children if running(pid)] == []
        await on.seen.state(State.LOADED)


async def test_never_means_never(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        model = await on.load(restart_policy=RestartPolicy.NEVER)
        os.kill(model.pid, signal.SIGKILL)
        failed = await on.seen.state(State.ERROR)
        assert failed.error is not None
        assert failed.error.reason is Reason.BACKEND_EXITED
        assert not failed.active


async def test_a_backend_that_dies_again_and_again_uses_up_its_budget(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        on.backend.behaviours["m"] = {"exit_once_loaded": 7}
        await on.fleet.load(on.spec(), "m")
        failed = await on.seen.state(State.ERROR)
        assert failed.error is not None
        assert failed.error.reason is Reason.RESTARTS_EXHAUSTED
        assert failed.restart_count == 5
        assert on.seen.states().count(State.RESTARTING) == 5


async def test_a_load_cuts_the_wait_for_a_restart_short(tmp_path: Path) -> None:
    async with bench(tmp_path, numbers=replace(QUICK, first_delay=600.0, longest_delay=600.0)) as on:
        model = await on.load()
        os.kill(model.pid, signal.SIGKILL)
        await on.seen.state(State.RESTARTING)
        assert (await on.fleet.load(on.spec(), "m")).existing
        assert (await on.seen.state(State.LOADED)).uid == model.uid


async def test_an_unload_while_restarting_ends_it(tmp_path: Path) -> None:
    async with bench(tmp_path, numbers=replace(QUICK, first_delay=600.0, longest_delay=600.0)) as on:
        model = await on.load()
        os.kill(model.pid, signal.SIGKILL)
        await on.seen.state(State.RESTARTING)
        await on.seen.until(lambda: not on.fleet.supervisor("m").life.occupied)
        assert on.fleet.unload("m").state is State.UNLOADED
        assert on.fleet.list() == []


async def test_a_silent_backend_is_unhealthy_until_it_answers_again(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        model = await on.load()
        await control(model, status=503)
        sick = await on.seen.state(State.UNHEALTHY)
        assert "503" in sick.message
        assert sick.pid == model.pid
        await control(model, status=200)
        well = await on.seen.state(State.LOADED)
        assert well.pid == model.pid
        assert well.message == ""
        assert well.restart_count == 0


async def test_a_backend_that_stays_silent_is_killed_and_started_again(tmp_path: Path) -> None:
    async with bench(tmp_path, numbers=ANXIOUS, backend=FakeBackend(patience=1.0)) as on:
        model = await on.load()
        os.kill(model.pid, signal.SIGSTOP)
        await on.seen.state(State.UNHEALTHY)
        restarting = await on.seen.state(State.RESTARTING)
        assert restarting.error is not None
        assert restarting.error.reason is Reason.BACKEND_UNRESPONSIVE
        again = await on.seen.state(State.LOADED)
        assert again.pid != model.pid
        assert not running(model.pid)


@pytest.mark.parametrize(
    "search", [pytest.param(0.1, id="searched"), pytest.param(600.0, id="before the first search")]
)
async def test_the_end_of_a_member_is_followed_by_a_probe_at_once(tmp_path: Path, search: float) -> None:
    async with bench(tmp_path, numbers=replace(ANXIOUS, probe=600.0, member_scan=search)) as on:
        model = await on.load(behave={"children": [{}]})
        _, child = await pids_of(model)
        assert child in model.pids
        await control(model, status=503)
        os.kill(child, signal.SIGKILL)
        await on.seen.state(State.UNHEALTHY)
        restarting = await on.seen.state(State.RESTARTING)
        assert restarting.error is not None
        assert restarting.error.reason is Reason.BACKEND_ENGINE_DEAD
        assert str(child) in restarting.error.text


async def test_a_member_whose_end_does_not_matter_changes_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        model = await on.load(behave={"children": [{}]})
        _, child = await pids_of(model)
        os.kill(child, signal.SIGKILL)
        with anyio.move_on_after(0.5):
            await anyio.sleep_forever()
        assert on.fleet.get("m").state is State.LOADED
        assert on.seen.states() == [State.LOADING, State.LOADED]


async def test_a_clock_that_is_set_back_delays_no_restart(tmp_path: Path) -> None:
    def wall() -> float:
        return time.time() - (3600.0 if fell and State.RESTARTING in fell[0].seen.states() else 0.0)

    fell: list[Bench] = []
    async with bench(tmp_path, wall=wall) as on:
        fell.append(on)
        model = await on.load()
        os.kill(model.pid, signal.SIGKILL)
        await on.seen.state(State.RESTARTING)
        await on.seen.state(State.LOADED)


@pytest.mark.usefixtures("with_and_without_cgroups")
@pytest.mark.parametrize("child", [{}, {"setsid": True, "twice": True}], ids=["a child", "nobody's child"])
async def test_a_member_that_ended_is_shown_no_more(
    tmp_path: Path, child: Mapping[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown() -> tuple[int, ...]:
        return on.seen.models[-1].pids

    asked: list[set[int]] = []
    searched_enough = False
    search = MemberScan.of

    async def memory_returned(pids: Iterable[int], _seconds: float) -> bool:
        asked.append(set(pids))
        return True

    async def search_until_told(scan: MemberScan, family: Family) -> tuple[ProcessId, ...]:
        found = await search(scan, family)
        if searched_enough:
            await anyio.sleep_forever()
        return found

    monkeypatch.setattr(MemberScan, "of", search_until_told)
    async with bench(tmp_path, memory_returned=memory_returned) as on:
        model = await on.load(behave={"children": [child]})
        leader, member = await pids_of(model)
        await on.seen.until(lambda: set(shown()) == {leader, member})
        searched_enough = True
        os.kill(member, signal.SIGKILL)
        await on.seen.until(lambda: shown() == (leader,))
        assert on.fleet.get("m").pids == (leader,)
        assert on.seen.states() == [State.LOADING, State.LOADED]
        os.kill(leader, signal.SIGKILL)
        assert (await on.seen.state(State.RESTARTING)).pids == ()
        await on.seen.state(State.LOADED)
        assert asked == [{leader, member}]  # a driver may show either for a while


async def test_random_kills_end_in_loaded_and_leave_nothing_behind(tmp_path: Path) -> None:
    async with bench(tmp_path, numbers=replace(QUICK, budget=100)) as on:
        everybody: set[int] = set()
        model = await on.load(behave={"children": [{"setsid": True}, {"stubborn": True}]})
        for turn in range(6):
            pids = await pids_of(model)
            everybody |= set(pids)
            os.kill(pids[0], signal.SIGKILL)
            if turn % 2:
                os.kill(pids[1], signal.SIGKILL)
            await on.seen.state(State.RESTARTING, State.LOADING)
            model = await on.seen.state(State.LOADED)
        everybody -= set(await pids_of(model))
        assert [pid for pid in everybody if running(pid)] == []
