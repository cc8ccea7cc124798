"""Loading, joining, failing and unloading on real processes."""

import errno
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count
from pathlib import Path

import anyio
import pytest
from slipway_runner.backends.base import Settings, StartLimits, Task
from slipway_runner.devices.device import Device
from slipway_runner.models.record import Activation
from slipway_runner.models.spec import PathSource
from slipway_runner.models.states import State
from slipway_runner.process import cgroup, members, pidfd
from slipway_service.fault import Fault, Reason

from tests.integration.runner.fakes import (
    QUICK,
    FakeBackend,
    bench,
    control,
    cpu,
    pids_of,
    running,
    tell_on,
    told,
)

pytestmark = pytest.mark.anyio

IMPATIENT = FakeBackend(start_limits=StartLimits(stall_seconds=0.5, floor_seconds=60.0))


async def test_a_model_is_loaded_answers_and_is_gone_after_unload(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        model = await on.load()
        assert model.state is State.LOADED
        assert model.port
        assert model.active
        assert model.pids == (model.pid,)
        assert running(model.pid)
        assert on.fleet.unload("m").state is State.UNLOADING
        await on.seen.until(lambda: on.seen.gone == [("m", model.uid)])
        assert on.seen.states() == [State.LOADING, State.LOADED, State.UNLOADING, State.UNLOADED]
        assert not running(model.pid)
        assert on.fleet.list() == []


async def test_shards_reach_the_sink_and_the_fraction_never_falls(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        on.backend.behaviours["m"] = {"lines": [line for n in range(5) for line in (f"SHARDS {n}/4", None)]}
        await on.fleet.load(on.spec(), "m")
        for n in range(5):
            await told(on, shards_done=n)
            tell_on(on.fleet)
        await on.seen.state(State.LOADED)
        fractions = [told.fraction for told in on.seen.told]
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0
        assert all(fraction < 1.0 for fraction in fractions[:-1])


async def test_an_equal_load_joins_and_another_spec_is_refused_with_the_difference(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        first = await on.fleet.load(on.spec(), "m")
        second = await on.fleet.load(on.spec(), "m")
        assert not first.existing
        assert second.existing
        assert second.model.uid == first.model.uid
        with pytest.raises(Fault) as refused:
            await on.fleet.load(on.spec(settings=Settings(context_length=512)), "m")
        assert refused.value.reason is Reason.MODEL_ID_TAKEN
        assert "context_length unset, asked for 512" in refused.value.text


async def test_a_model_that_fills_the_memory_can_still_be_joined(tmp_path: Path) -> None:
    free = [1 << 30]

    def devices() -> tuple[Device, ...]:
        return tuple(replace(one, memory_total=1 << 30) for one in cpu(free[0]))

    async with bench(tmp_path, devices=devices) as on:
        model = await on.load()
        free[0] = 0
        assert (await on.fleet.load(on.spec(), "m")).model.uid == model.uid
        with pytest.raises(Fault) as refused:
            await on.fleet.load(on.spec(), "another")
        assert refused.value.reason is Reason.DEVICE_MEMORY_INSUFFICIENT


async def test_memory_that_a_load_has_claimed_is_not_free(tmp_path: Path) -> None:
    async with bench(tmp_path, devices=lambda: cpu(300 << 20)) as on:
        on.backend.behaviours["first"] = {"hang": True}
        await on.fleet.load(on.spec(), "first")
        with pytest.raises(Fault) as refused:
            await on.fleet.load(on.spec(), "second")
        assert refused.value.reason is Reason.DEVICE_MEMORY_INSUFFICIENT
        on.fleet.unload("first")
        await on.seen.until(lambda: bool(on.seen.gone))
        await on.fleet.load(on.spec(), "second")


async def test_a_load_that_is_given_up_while_it_claims_memory_claims_none(tmp_path: Path) -> None:
    looks = count(1)
    looking, unloaded = threading.Event(), threading.Event()

    def devices() -> tuple[Device, ...]:
        if next(looks) == 2:  # the first look is that of planning
            looking.set()
            unloaded.wait(30.0)
        return cpu(300 << 20)

    async with bench(tmp_path, devices=devices) as on:
        await on.fleet.load(on.spec(), "first")
        await on.seen.until_true(looking.is_set)
        given_up = on.fleet.supervisor("first")
        on.fleet.unload("first")
        await on.seen.until(lambda: bool(on.seen.gone))
        unloaded.set()
        await on.seen.until_true(lambda: given_up.listener is None)  # its run has ended
        await on.fleet.load(on.spec(), "second")


async def test_loads_of_one_id_at_once_start_one_process(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        uids = set()

        async def load() -> None:
            uids.add((await on.fleet.load(on.spec(), "m")).model.uid)

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(load)
        model = await on.seen.state(State.LOADED)
        assert uids == {model.uid}
        assert len({told.pid for told in on.seen.models if told.pid}) == 1


async def test_validate_only_changes_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        loaded = await on.fleet.load(on.spec(), "m", validate_only=True)
        assert loaded.model.uid == ""
        assert loaded.model.backend == "fake"
        assert on.seen.models == []
        assert on.fleet.list() == []


async def test_a_load_while_unloading_is_told_to_come_back(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        await on.load(behave={"stubborn": True})
        on.fleet.unload("m")
        with pytest.raises(Fault) as refused:
            await on.fleet.load(on.spec(), "m")
        assert refused.value.reason is Reason.MODEL_UNLOADING
        assert refused.value.retry_after


async def test_unload_twice_joins_and_then_it_is_not_found(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        model = await on.load()
        assert on.fleet.unload("m").uid == on.fleet.unload("m").uid == model.uid
        await on.seen.until(lambda: bool(on.seen.gone))
        for call in (on.fleet.unload, on.fleet.get):
            with pytest.raises(Fault) as missing:
                call("m")
            assert missing.value.reason is Reason.MODEL_NOT_FOUND
            assert missing.value.resource == "models/m"


async def test_unload_while_loading_ends_the_process(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        on.backend.behaviours["m"] = {"lines": ["SHARDS 1/2"], "hang": True}
        await on.fleet.load(on.spec(), "m")
        await on.seen.until(lambda: any(told.shards_done for told in on.seen.told))
        attached = on.fleet.supervisor("m").attached
        assert attached is not None
        assert running(attached.running.pid)
        on.fleet.unload("m")
        await on.seen.until(lambda: bool(on.seen.gone))
        assert not running(attached.running.pid)
        assert on.seen.states() == [State.LOADING, State.UNLOADING, State.UNLOADED]


async def test_unload_at_every_moment_of_a_load_leaves_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        for ticks in range(0, 40, 4):
            await on.fleet.load(on.spec(), "m")
            with anyio.move_on_after(ticks / 100):
                await anyio.sleep_forever()
            on.fleet.unload("m")
            await on.seen.until(lambda: on.fleet.list() == [])
        assert not [pid for told in on.seen.models for pid in told.pids if running(pid)]


async def test_a_failed_load_says_why_and_a_new_one_has_a_new_uid(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        failed = await on.load(behave={"fail": 3})
        assert failed.state is State.ERROR
        assert failed.error is not None
        assert failed.error.reason is Reason.BACKEND_EXITED
        assert failed.exit is not None
        assert failed.exit.code == 3
        assert failed.exit.last_lines == ("E: cannot load the model: it is broken",)
        on.backend.behaviours["m"] = {}
        again = await on.fleet.load(on.spec(), "m")
        assert again.model.uid != failed.uid
        assert not again.existing
        assert on.seen.gone == [("m", failed.uid)]
        loaded = await on.seen.state(State.LOADED)
        assert loaded.uid == again.model.uid
        assert loaded.attempt == 1
        assert loaded.error is None


@contextmanager
def no_folders(root: Path) -> Iterator[Path]:
    """The state directory of a bench takes no model's folder meanwhile, whoever runs it; yields what is refused."""
    models = root / "state" / "models"
    aside = root / "aside"
    if models.exists():
        models.rename(aside)
    models.write_text("in the way")
    yield models
    models.unlink()
    if aside.exists():
        aside.rename(models)


async def test_a_state_directory_that_takes_no_folder_refuses_the_load_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    async with bench(tmp_path, devices=lambda: cpu(300 << 20)) as on:  # for one model
        with no_folders(tmp_path) as refused:
            with pytest.raises(Fault, match=str(refused)) as caught:
                await on.fleet.load(on.spec(), "m")
            assert caught.value.reason is Reason.DISK_FAULT
            assert (on.fleet.list(), on.seen.models) == ([], [])
        assert (await on.load("other")).state is State.LOADED


async def test_a_full_state_disk_is_named_with_what_is_free_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    async with bench(tmp_path) as on:
        spec = on.spec()
        with monkeypatch.context() as patched:
            patched.setattr(Path, "mkdir", full)
            with pytest.raises(Fault) as caught:
                await on.fleet.load(spec, "m")
        assert caught.value.reason is Reason.DISK_FULL
        (disk,) = caught.value.preconditions
        assert (disk.type, disk.subject) == ("DISK", str(tmp_path / "state"))
        assert re.fullmatch(r"No space left on device; free_bytes=\d+", disk.description)
        assert disk.description.endswith(f"free_bytes={caught.value.facts['free']}")


async def test_an_error_stays_as_it_is_when_there_is_no_folder_to_load_it_anew(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        failed = await on.load(behave={"fail": 1})
        on.backend.behaviours["m"] = {}
        with no_folders(tmp_path), pytest.raises(Fault):
            await on.fleet.load(on.spec(), "m")
        assert (on.fleet.get("m").uid, on.fleet.get("m").state) == (failed.uid, State.ERROR)
        assert on.seen.gone == []
        again = await on.fleet.load(on.spec(), "m")
        assert (await on.seen.state(State.LOADED)).uid == again.model.uid


async def test_an_error_is_unloaded_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        await on.load(behave={"fail": 1})
        await on.seen.until(lambda: not on.fleet.supervisor("m").life.occupied)
        assert on.fleet.unload("m").state is State.UNLOADED
        assert on.fleet.list() == []


async def test_a_foreign_server_on_the_port_is_not_taken_for_the_backend(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        on.backend.behaviours["m"] = {"hang": True}
        await on.fleet.load(on.spec(), "m")
        await on.seen.until(lambda: on.fleet.supervisor("m").attached is not None)
        attached = on.fleet.supervisor("m").attached
        assert attached is not None
        with foreign_server(attached.launch.port):
            failed = await on.seen.state(State.ERROR)
        assert failed.error is not None
        assert failed.error.reason is Reason.PORT_IN_USE


class foreign_server:  # noqa: N801  # used as a function
    """Answers everything with 200, on a port that somebody else holds."""

    def __init__(self, port: int) -> None:
        class Yes(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = HTTPServer(("127.0.0.1", port), Yes, bind_and_activate=False)
        self._server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)

    def __enter__(self) -> None:
        self._server.server_bind()
        self._server.server_activate()
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


async def test_a_leader_that_leaves_a_daemon_behind_has_failed_and_the_daemon_is_ended(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        failed = await on.load(behave={"daemonise": True})
        assert failed.state is State.ERROR
        await on.seen.until(lambda: not on.fleet.supervisor("m").life.occupied)
        assert members.tagged(on.fleet.supervisor("m").means.instance) == {}


@pytest.mark.usefixtures("with_and_without_cgroups")
async def test_unload_ends_the_whole_tree(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        children = [
            {},
            {"stubborn": True},
            {"setsid": True},
            {"setsid": True, "stubborn": True},
            {"twice": True},
            {"setsid": True, "twice": True, "stubborn": True},
        ]
        model = await on.load(behave={"children": children, "stubborn": True})
        pids = await pids_of(model)
        assert len(pids) == 7
        assert set(model.pids) == set(pids[:5])
        await on.seen.until_true(lambda: set(on.fleet.get("m").pids) == set(pids))  # the orphans are searched for
        on.fleet.unload("m")
        await on.seen.until(lambda: bool(on.seen.gone))
        assert [pid for pid in pids if running(pid)] == []


async def test_what_cannot_be_killed_is_an_error_with_its_pids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(tmp_path, backend=FakeBackend(stop_ladder=())) as on:
        model = await on.load()
        with monkeypatch.context() as patched:
            patched.setattr(pidfd, "send", lambda *_: None)  # an uninterruptible wait takes no signal
            patched.setattr(cgroup, "kill", lambda *_: None)
            patched.setattr("slipway_runner.models.teardown._KILL_SECONDS", 0.2)
            patched.setattr("slipway_runner.models.teardown._LEAK_RETRY_SECONDS", 0.2)
            on.fleet.unload("m")
            leaked = await on.seen.state(State.ERROR)
            assert leaked.error is not None
            assert leaked.error.reason is Reason.LEAKED
            assert leaked.pids == (model.pid,)
            assert on.fleet.unload("m").state is State.UNLOADING
            await on.seen.until(lambda: on.seen.states()[-2:] == [State.UNLOADING, State.ERROR])
            loading = await on.fleet.load(on.spec(), "m")
            assert loading.model.state is State.LOADING
        loaded = await on.seen.state(State.LOADED)
        assert loaded.uid == loading.model.uid
        assert loaded.pid != model.pid
        assert not running(model.pid)


async def test_device_memory_that_does_not_come_back_is_a_leak(tmp_path: Path) -> None:
    back = anyio.Event()

    async def memory_returned(pids: object, seconds: float) -> bool:
        with anyio.move_on_after(0.1):
            await back.wait()
        return back.is_set()

    async with bench(tmp_path, memory_returned=memory_returned) as on:
        await on.load()
        on.fleet.unload("m")
        leaked = await on.seen.state(State.ERROR)
        assert leaked.error is not None
        assert leaked.error.reason is Reason.LEAKED
        back.set()
        await on.seen.until(lambda: not on.fleet.supervisor("m").life.occupied)
        assert on.fleet.unload("m").state is State.UNLOADED


async def test_the_active_model_is_per_task_and_changed_by_compare_and_set(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        first = await on.load("first")
        assert first.active
        await on.fleet.load(on.spec(), "second", activation=Activation.IF_NONE)
        second = await on.seen.state(State.LOADED, model_id="second")
        assert not second.active
        assert on.fleet.active(second.task).id == "first"
        with pytest.raises(Fault) as refused:
            on.fleet.set_active("second", expected="another")
        assert refused.value.reason is Reason.ACTIVE_MISMATCH
        assert on.fleet.set_active("second", expected="first") == "first"
        assert on.fleet.get("second").active
        assert not on.fleet.get("first").active
        assert [(told.id, told.active) for told in on.seen.models[-2:]] == [("first", False), ("second", True)]
        on.fleet.unload("second")
        with pytest.raises(Fault) as none:
            on.fleet.active(second.task)
        assert none.value.reason is Reason.NO_ACTIVE_MODEL


async def test_a_third_load_takes_over_as_active_unless_told_not_to(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        await on.load("first")
        await on.load("second")
        assert on.fleet.active(on.fleet.get("first").task).id == "second"
        assert not on.fleet.get("first").active
        await on.fleet.load(on.spec(), "third", activation=Activation.NEVER)
        assert not (await on.seen.state(State.LOADED, model_id="third")).active


async def test_only_a_loaded_model_can_be_active(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        on.backend.behaviours["m"] = {"hang": True}
        await on.fleet.load(on.spec(), "m")
        with pytest.raises(Fault) as refused:
            on.fleet.set_active("m")
        assert refused.value.reason is Reason.MODEL_NOT_LOADED


async def test_a_model_is_active_for_no_task_but_its_own(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        await on.load()
        with pytest.raises(Fault) as refused:
            on.fleet.set_active("m", task=Task.EMBED)
        assert refused.value.reason is Reason.INVALID_FIELDS
        assert [wrong.field for wrong in refused.value.fields] == ["task"]


async def test_shutdown_ends_all_models_side_by_side(tmp_path: Path) -> None:
    ending: set[object] = set()
    all_end = anyio.Event()

    async def memory_returned(pids: object, _seconds: float) -> bool:
        ending.add(pids)
        if len(ending) == 4:
            all_end.set()
        await all_end.wait()  # who is ended alone waits for the others in vain
        return True

    async with bench(tmp_path, numbers=replace(QUICK, shutdown=600.0), memory_returned=memory_returned) as on:
        models = [await on.load(f"m{n}", behave={"stubborn": True, "children": [{"setsid": True}]}) for n in range(4)]
        pids = [pid for model in models for pid in await pids_of(model)]
        with anyio.fail_after(60):
            await on.fleet.shutdown()
        assert [pid for pid in pids if running(pid)] == []
        assert on.fleet.list() == []
        with pytest.raises(Fault) as refused:
            await on.fleet.load(on.spec(), "m")
        assert refused.value.reason is Reason.DRAINING


async def test_a_path_outside_the_roots_is_refused(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        spec = on.spec()
        outside = tmp_path / "secret.gguf"
        outside.write_bytes(b"GGUF")
        link = on.root / "link.gguf"
        link.symlink_to(outside)
        for path in (outside, link, on.root / ".." / "secret.gguf"):
            with pytest.raises(Fault) as refused:
                await on.fleet.load(replace(spec, source=PathSource(path=path)), "m")
            assert refused.value.reason is Reason.PATH_NOT_ALLOWED


async def test_a_chatty_backends_log_gives_its_head_back(tmp_path: Path) -> None:
    async with bench(tmp_path, numbers=replace(QUICK, log_keep=50_000)) as on:
        model = await on.load()
        for n in range(40):
            await control(model, say=f"{n:05d} " + "x" * 10_000)
        log = on.fleet.log("m")
        await on.seen.until_true(lambda: log.read(0).offset > 0)
        assert log.size() > 400_000
        assert b"00039" in log.read(log.size() - 12_000).data


async def test_an_empty_cgroup_is_not_left_behind(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        await on.load()
        root = on.fleet.supervisor("m").means.cgroup_root
    assert root is None or not root.exists()
