"""A runner that was killed, and the next one."""

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import PIPE
from typing import Any

import anyio
import pytest
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream
from slipway_runner.models.record import Activation
from slipway_runner.models.states import RestartPolicy, State
from slipway_runner.process import cgroup, pidfd, proc
from slipway_runner.process.journal import JournalInUse
from slipway_service.fault import Fault, Reason

from tests.integration.runner.fakes import QUICK, FakeBackend, bench, control, cpu, pids_of, running, tell_on

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient_adoption")]


@dataclass
class Driver:
    """A runner in a process of its own."""

    process: Process
    lines: list[list[str]]

    async def until(self, done: Callable[[list[str]], bool]) -> list[str]:
        """Wait for a line, and until a kill leaves a trace of the process; returns the line's words."""
        assert self.process.stdout is not None
        with anyio.fail_after(60):
            rest = ""
            async for chunk in TextReceiveStream(self.process.stdout):
                *lines, rest = (rest + chunk).split("\n")
                self.lines += [line.split(" ") for line in lines]
                found = next(filter(done, self.lines), None)
                if found is not None and ["WRITTEN"] in self.lines:
                    return found
        raise AssertionError(f"the driver ended: {self.lines}")

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def driver(root: Path, behaviour: Mapping[str, Any]) -> AsyncIterator[Driver]:
    argv = [sys.executable, "-m", "tests.integration.runner.driver", str(root), json.dumps(behaviour)]
    async with await anyio.open_process(argv, stdout=PIPE, stderr=None) as process:
        try:
            yield Driver(process, [])
        finally:
            if process.returncode is None:
                process.kill()


async def test_a_killed_runners_model_goes_on_with_the_same_process(tmp_path: Path) -> None:
    behaviour = {"children": [{"setsid": True}]}
    async with driver(tmp_path, behaviour) as first:
        _, _, pid, uid = await first.until(lambda words: words[:2] == ["STATE", "LOADED"])
        await first.kill()
    assert running(int(pid))
    async with bench(tmp_path, backend=FakeBackend(behaviour=behaviour)) as on:
        # LOADED at once, unless the first one was killed between saying so and having it on disk.
        model = await on.seen.state(State.LOADED)
        assert (model.uid, model.pid) == (uid, int(pid))
        assert model.adopted
        assert model.active
        pids = await pids_of(model)
        assert (await on.fleet.load(on.spec(), "m")).existing
        on.fleet.unload("m")
        await on.seen.until(lambda: bool(on.seen.gone))
        assert [one for one in pids if running(one)] == []


async def test_a_killed_runners_load_goes_on_and_its_log_is_read_from_the_start(tmp_path: Path) -> None:
    shards = [f"SHARDS {n}/4" for n in range(5)]
    behaviour = {"lines": [*shards[:3], None, *shards[3:]]}
    async with driver(tmp_path, behaviour) as first:
        await first.until(lambda words: words[0] == "PROGRESS" and int(words[1]) >= 2)
        uid = next(words[3] for words in first.lines if words[0] == "STATE")
        await first.kill()
    async with bench(tmp_path, backend=FakeBackend(behaviour=behaviour)) as on:
        model = on.fleet.get("m")
        assert (model.state, model.uid, model.adopted) == (State.LOADING, uid, True)
        await on.seen.until(lambda: any(told.shards_done >= 2 for told in on.seen.told))
        assert all(told.shards_done < 3 for told in on.seen.told)
        tell_on(on.fleet)
        loaded = await on.seen.state(State.LOADED)
        assert (loaded.uid, loaded.pid, loaded.attempt) == (uid, model.pid, 1)


async def test_memory_that_an_adopted_load_takes_is_not_free(tmp_path: Path) -> None:
    behaviour = {"lines": ["SHARDS 1/2"], "hang": True}
    async with bench(tmp_path, devices=lambda: cpu(300 << 20), stop=False) as on:
        on.backend.behaviours["first"] = behaviour
        await on.fleet.load(on.spec(), "first")
        await on.seen.until(lambda: any(told.shards_done for told in on.seen.told))
    async with bench(tmp_path, devices=lambda: cpu(300 << 20)) as on:
        assert on.fleet.get("first").state is State.LOADING
        with pytest.raises(Fault) as refused:
            await on.fleet.load(on.spec(), "second")
        assert refused.value.reason is Reason.DEVICE_MEMORY_INSUFFICIENT
        on.fleet.unload("first")
        await on.seen.until(lambda: bool(on.seen.gone))
        await on.fleet.load(on.spec(), "second")


async def test_an_upgrade_keeps_the_models(tmp_path: Path) -> None:
    async with bench(tmp_path, stop=False) as on:
        before = await on.load()
        await on.fleet.shutdown(keep_models=True)
    async with bench(tmp_path) as on:
        after = on.fleet.get("m")
        assert (after.uid, after.pid, after.port, after.state) == (
            before.uid,
            before.pid,
            before.port,
            State.LOADED,
        )
        assert (after.load_time, after.update_time) == (before.load_time, before.update_time)
        os.kill(after.pid, signal.SIGKILL)
        restarting = await on.seen.state(State.RESTARTING)
        assert restarting.exit is not None
        assert (restarting.exit.code, restarting.exit.signal) == (None, None)
        assert not (await on.seen.state(State.LOADED)).adopted


async def test_a_model_whose_process_was_lost_is_started_again(tmp_path: Path) -> None:
    async with bench(tmp_path, stop=False) as on:
        before = await on.load()
    await kill(before.pid)
    async with bench(tmp_path) as on:
        assert on.seen.models[0].state is State.RESTARTING
        assert on.seen.models[0].update_time != before.update_time
        assert on.seen.models[0].error is not None
        assert on.seen.models[0].error.reason is Reason.PROCESS_LOST
        after = await on.seen.state(State.LOADED)
        assert after.uid == before.uid
        assert after.restart_count == 1
        assert after.active


async def test_a_lost_process_is_an_error_where_nothing_restarts(tmp_path: Path) -> None:
    async with bench(tmp_path, stop=False) as on:
        before = await on.load(restart_policy=RestartPolicy.NEVER)
    await kill(before.pid)
    async with bench(tmp_path) as on:
        assert [(told.state, told.active) for told in on.seen.models] == [(State.ERROR, False)]
        assert on.fleet.get("m") == on.seen.models[0]


@pytest.mark.usefixtures("with_and_without_cgroups")
async def test_the_rest_of_a_lost_tree_is_ended(tmp_path: Path) -> None:
    behaviour = {"children": [{"stubborn": True}, {"setsid": True, "stubborn": True}]}
    async with bench(tmp_path, stop=False) as on:
        before = await on.load(behave=behaviour)
        leader, *children = await pids_of(before)
    await kill(leader)
    assert all(running(pid) for pid in children)
    async with bench(tmp_path) as on:
        await on.seen.state(State.LOADED)
        assert [pid for pid in children if running(pid)] == []


async def test_the_end_of_an_adopted_member_is_seen_before_the_first_search(tmp_path: Path) -> None:
    async with bench(tmp_path, stop=False) as on:
        before = await on.load(behave={"children": [{}]})
        _, child = await pids_of(before)
    async with bench(tmp_path, numbers=replace(QUICK, probe=600.0, member_scan=600.0)) as on:
        model = on.fleet.get("m")
        assert model.state is State.LOADED
        await on.seen.until_true(lambda: child in on.fleet.get("m").pids)
        await control(model, status=503)
        await kill(child)
        assert (await on.seen.state(State.UNHEALTHY)).pid == before.pid


async def test_a_silent_process_is_adopted_as_unhealthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slipway_runner.models.adoption._ANSWER_SECONDS", 0.5)
    async with bench(tmp_path, stop=False) as on:
        before = await on.load()
    os.kill(before.pid, signal.SIGSTOP)
    async with bench(tmp_path) as on:
        assert on.fleet.get("m").state is State.UNHEALTHY
        os.kill(before.pid, signal.SIGCONT)
        after = await on.seen.state(State.LOADED)
        assert after.pid == before.pid


async def test_an_answer_on_a_port_that_is_anothers_now_is_none(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with bench(tmp_path / "a", stop=False) as on:
        before = await on.load()
    async with bench(tmp_path / "b") as other:
        stranger = await other.load()
        entry = journal_entry(tmp_path / "a", before.uid)
        body = json.loads(entry.read_text())
        body["started"]["plan"]["port"] = stranger.port
        entry.write_text(json.dumps(body))
        async with bench(tmp_path / "a") as on:
            adopted = on.seen.models[0]
            assert (adopted.pid, adopted.state) == (before.pid, State.UNHEALTHY)


@pytest.mark.parametrize(
    ("policy", "expected"), [(RestartPolicy.ALWAYS, State.LOADING), (RestartPolicy.ON_FAILURE, State.ERROR)]
)
async def test_a_reboot_is_recognised(tmp_path: Path, policy: RestartPolicy, expected: State) -> None:
    async with bench(tmp_path, stop=False) as on:
        before = await on.load(restart_policy=policy)
    await kill(before.pid)
    entry = journal_entry(tmp_path, before.uid)
    body = json.loads(entry.read_text())
    body["started"]["trace"]["boot_id"] = "another"
    entry.write_text(json.dumps(body))
    async with bench(tmp_path) as on:
        assert on.seen.models[0].state is expected
        if expected is State.LOADING:
            assert (await on.seen.state(State.LOADED)).uid == before.uid


async def without_process(root: Path, state: State, policy: RestartPolicy) -> tuple[Path, dict[str, Any]]:
    """The entry of a model that has no process: it waits for its next start, or is queued."""
    async with bench(root, stop=False) as on:
        before = await on.load(behave={"fail": 1}, restart_policy=policy)
        await on.seen.until(lambda: not on.fleet.supervisor("m").life.occupied)
    entry = journal_entry(root, before.uid)
    body = json.loads(entry.read_text())
    body["life"] |= {"state": state, "error": None, "retry_at": 1e12}
    body["model"] |= {"state": state, "error": None}
    assert body["started"] is None
    return entry, body


@pytest.mark.parametrize("state", [State.RESTARTING, State.LOADING])
@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (RestartPolicy.ALWAYS, State.LOADING),
        (RestartPolicy.ON_FAILURE, State.ERROR),
        (RestartPolicy.NEVER, State.ERROR),
    ],
)
async def test_a_reboot_is_recognised_where_there_was_no_process(
    tmp_path: Path, state: State, policy: RestartPolicy, expected: State
) -> None:
    entry, body = await without_process(tmp_path, state, policy)
    entry.write_text(json.dumps({**body, "boot_id": "another"}))
    async with bench(tmp_path) as on:
        first = on.seen.models[0]
        assert first.state is expected
        assert (first.error and first.error.reason) == (None if expected is State.LOADING else Reason.PROCESS_LOST)


async def test_an_entry_that_does_not_say_of_which_boot_it_is_is_of_this_one(tmp_path: Path) -> None:
    entry, body = await without_process(tmp_path, State.RESTARTING, RestartPolicy.ON_FAILURE)
    del body["boot_id"]
    entry.write_text(json.dumps(body))
    async with bench(tmp_path) as on:
        assert on.seen.models[0].state is State.RESTARTING


@pytest.mark.usefixtures("with_and_without_cgroups")
async def test_a_journal_of_another_version_is_set_aside_and_its_processes_are_ended(tmp_path: Path) -> None:
    async with bench(tmp_path, stop=False) as on:
        before = await on.load(behave={"children": [{"setsid": True}]})
        pids = await pids_of(before)
    entry = journal_entry(tmp_path, before.uid)
    body = json.loads(entry.read_text())
    entry.write_text(json.dumps({**body, "version": 999}))
    async with bench(tmp_path) as on:
        assert on.fleet.list() == []
        assert [pid for pid in pids if running(pid)] == []
        assert cgroups(tmp_path) == []
        assert entry.with_suffix(".unusable").exists()
        assert list((tmp_path / "state" / "models").iterdir()) == []


@pytest.mark.usefixtures("with_and_without_cgroups")
async def test_a_process_nobody_wrote_down_is_an_orphan(tmp_path: Path) -> None:
    async with bench(tmp_path, stop=False) as on:
        before = await on.load(behave={"children": [{"setsid": True, "stubborn": True}]})
        pids = await pids_of(before)
    journal_entry(tmp_path, before.uid).unlink()
    async with bench(tmp_path) as on:
        assert on.fleet.list() == []
        assert [pid for pid in pids if running(pid)] == []
        assert cgroups(tmp_path) == []


async def test_another_runners_processes_are_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with bench(tmp_path / "a") as one:
        model = await one.load()
        async with bench(tmp_path / "b"):
            assert running(model.pid)
        await control(model, status=200)


async def test_two_runners_cannot_share_a_state_directory(tmp_path: Path) -> None:
    async with bench(tmp_path):
        with pytest.raises(JournalInUse):
            async with bench(tmp_path):
                pass


async def test_a_load_that_had_no_process_yet_begins_again(tmp_path: Path) -> None:
    async with bench(tmp_path, stop=False) as on:
        before = await on.load(behave={"hang": True}, start_timeout=0.2)  # leaves an entry to be rewritten
    entry = journal_entry(tmp_path, before.uid)
    body = json.loads(entry.read_text())
    body["life"] |= {"state": "LOADING", "error": None, "occupied": False}
    body["model"] |= {"state": "LOADING", "error": None}
    body["started"] = None
    entry.write_text(json.dumps(body))
    async with bench(tmp_path) as on:
        assert on.fleet.get("m").state is State.LOADING
        assert (await on.seen.state(State.LOADED, State.ERROR)).uid == before.uid


async def test_what_an_earlier_load_left_is_not_taken_for_the_load_that_waits_for_it(tmp_path: Path) -> None:
    async with bench(tmp_path, stop=False) as on:
        before = await on.load()
    entry = journal_entry(tmp_path, before.uid)
    body = json.loads(entry.read_text())
    body["life"] |= {"state": "LOADING", "due": True, "loaded_once": False}
    body["model"] |= {"state": "LOADING"}
    entry.write_text(json.dumps(body))
    async with bench(tmp_path) as on:
        after = await on.seen.state(State.LOADED, State.ERROR)
        assert (after.state, after.uid) == (State.LOADED, before.uid)
        assert after.pid != before.pid
        assert not running(before.pid)


async def test_errors_and_the_choice_of_the_active_model_outlive_the_runner(tmp_path: Path) -> None:
    async with bench(tmp_path, stop=False) as on:
        await on.load("first")
        await on.load("second")
        on.fleet.set_active("first")
        failed = await on.load("broken", behave={"fail": 1})
        await on.seen.until(lambda: not on.fleet.supervisor("broken").life.occupied)
    async with bench(tmp_path) as on:
        assert on.fleet.get("first").active
        assert not on.fleet.get("second").active
        assert on.fleet.get("broken").error == failed.error


async def test_a_model_that_nobody_knows_any_more_is_not_active(tmp_path: Path) -> None:
    async with bench(tmp_path, stop=False) as on:
        lost = await on.load()
    journal_entry(tmp_path, lost.uid).unlink()
    async with bench(tmp_path, stop=False) as on:
        await on.fleet.load(on.spec(), "other", activation=Activation.IF_NONE)
        assert (await on.seen.state(State.LOADED, model_id="other")).active
    async with bench(tmp_path) as on:
        assert on.fleet.set_active("other", expected="other") == "other"


async def kill(pid: int) -> None:
    """Kill a process and wait until it has ended."""
    found = proc.stat(pid)
    assert found is not None
    os.kill(pid, signal.SIGKILL)
    await pidfd.exited(found.id)


def cgroups(root: Path) -> list[Path]:
    """Those of backends that the runner has not removed."""
    of_runner = cgroup.find_root((root / "state" / "instance").read_text().strip())
    return list(of_runner.glob("*/")) if of_runner else []


def journal_entry(root: Path, uid: str) -> Path:
    """The only copy of the newest entry, to be tampered with."""
    folder = root / "state" / "journal"
    for fresh in folder.glob(f"{uid}.*.fresh"):
        fresh.replace(folder / f"{uid}.json")
    return folder / f"{uid}.json"
