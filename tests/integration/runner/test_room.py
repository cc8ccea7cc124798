"""Making room: eviction, replacement, idleness."""

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from slipway_runner.backends.base import Settings, StopStep, Task
from slipway_runner.devices.device import Device
from slipway_runner.models import planning
from slipway_runner.models.record import Activation
from slipway_runner.models.spec import PathSource, Spec
from slipway_runner.models.states import State
from slipway_service.fault import Fault, Reason

from tests.integration.runner.fake_registry import BYTES_PER_TOKEN, FILE, SPEC, FakeSnapshots, gguf_with_a_context
from tests.integration.runner.fakes import QUICK, Bench, FakeBackend, bench, cpu, tell_on

pytestmark = pytest.mark.anyio

# Whoever does not hear SIGTERM goes when a test kills it.
LINGERING = FakeBackend(stop_ladder=(StopStep(signal.SIGTERM, 600.0), StopStep(signal.SIGKILL, 60.0)))

# What the estimate says of a model of a kilobyte: a device context of 256 MiB.
ONE = 260 << 20


@dataclass
class Memory:
    """Main memory of so many models."""

    models: int
    taken: int = 0

    def __call__(self) -> tuple[Device, ...]:
        total = self.models * ONE
        return tuple(replace(one, memory_total=total) for one in cpu(total - self.taken * ONE))


@dataclass(frozen=True)
class Used:
    in_flight: int
    last_use: float


@dataclass
class Use:
    """What a gateway would say."""

    used: dict[str, Used] = field(default_factory=dict)
    broken: bool = False

    async def __call__(self) -> Mapping[str, Used]:
        if self.broken:
            raise OSError("the gateway is away")
        return self.used


async def two_loaded(on: Bench, memory: Memory) -> None:
    for name in ("old", "new"):
        await on.fleet.load(on.spec(), name, activation=Activation.NEVER)
        await on.seen.state(State.LOADED, model_id=name)
        memory.taken += 1


async def test_the_least_recently_used_goes(tmp_path: Path) -> None:
    memory, use = Memory(2), Use()
    async with bench(tmp_path, devices=memory, use_of=use) as on:
        await two_loaded(on, memory)
        use.used = {on.fleet.get("old").uid: Used(0, time.time())}
        with pytest.raises(Fault) as refused:
            await on.fleet.load(on.spec(), "third")
        assert refused.value.reason is Reason.DEVICE_MEMORY_INSUFFICIENT
        would = await on.fleet.load(on.spec(), "third", evict=True, validate_only=True)
        assert would.evicted == ("new",)
        assert on.fleet.get("new").state is State.LOADED
        loading = await on.fleet.load(on.spec(), "third", evict=True)
        assert loading.evicted == ("new",)
        assert on.fleet.get("new").state is State.UNLOADING
        assert on.fleet.get("new").message.startswith("it makes room for third: ")
        memory.taken -= 1
        assert (await on.seen.state(State.LOADED, State.ERROR, model_id="third")).state is State.LOADED
        assert [model.id for model in on.fleet.list()] == ["old", "third"]


async def test_nobody_goes_for_what_does_not_fit_anyway(tmp_path: Path, registry: FakeSnapshots) -> None:
    (registry.root / FILE).write_bytes(registry.content)
    memory = Memory(2)
    async with bench(tmp_path, devices=memory, snapshots=registry) as on:
        # Its pages are mapped from a file: they count as free though it is LOADED.
        await on.fleet.load(on.spec(), "old", activation=Activation.NEVER)
        await on.seen.state(State.LOADED, model_id="old")
        too_much = replace(SPEC, settings=Settings(context_length=2 * ONE // BYTES_PER_TOKEN))
        with pytest.raises(Fault) as refused:
            await on.fleet.load(too_much, "big", evict=True)
        assert refused.value.reason is Reason.DEVICE_MEMORY_INSUFFICIENT
        assert on.fleet.get("old").state is State.LOADED


async def test_what_little_room_made_of_a_spec_is_joined_by_the_same_spec(tmp_path: Path) -> None:
    def devices() -> tuple[Device, ...]:
        return tuple(replace(one, memory_total=64 << 30) for one in cpu(4 << 30))

    async with bench(tmp_path, devices=devices) as on:
        both = on.root / "both"
        both.mkdir()
        (both / "m-Q4_K_M.gguf").write_bytes(b"GGUF" + bytes(1000))
        (both / "config.json").write_text("{}")
        with (both / "model.safetensors").open("wb") as weights:
            weights.truncate(8 << 30)
        spec = Spec(source=PathSource(path=both))
        first = await on.fleet.load(spec, "m")
        assert (first.existing, first.model.variant) == (False, "Q4_K_M")
        again = await on.fleet.load(spec, "m")
        assert (again.existing, again.model.uid) == (True, first.model.uid)
        with pytest.raises(Fault) as taken:
            await on.fleet.load(replace(spec, variant="safetensors"), "m")
        assert taken.value.reason is Reason.MODEL_ID_TAKEN


async def test_neither_pinned_nor_active_models_go(tmp_path: Path) -> None:
    memory = Memory(2)
    async with bench(tmp_path, devices=memory) as on:
        await on.fleet.load(on.spec(pinned=True), "pinned", activation=Activation.NEVER)
        await on.seen.state(State.LOADED, model_id="pinned")
        await on.load("active")
        memory.taken = 2
        with pytest.raises(Fault) as refused:
            await on.fleet.load(on.spec(), "third", evict=True)
        assert refused.value.reason is Reason.DEVICE_MEMORY_INSUFFICIENT
        assert {model.state for model in on.fleet.list()} == {State.LOADED}


async def test_a_load_waits_for_those_who_make_room(tmp_path: Path) -> None:
    memory = Memory(1)
    async with bench(tmp_path, devices=memory, backend=LINGERING) as on:
        on.backend.behaviours["old"] = {"stubborn": True}
        await on.fleet.load(on.spec(), "old", activation=Activation.NEVER)
        old = await on.seen.state(State.LOADED, model_id="old")
        memory.taken = 1
        await on.fleet.load(on.spec(), "new", evict=True)
        await on.seen.until(lambda: on.fleet.get("new").message == "waiting for old to be unloaded")
        assert on.fleet.supervisor("new").attached is None
        memory.taken = 0
        os.kill(old.pid, signal.SIGKILL)
        await on.seen.state(State.LOADED, model_id="new")
        assert on.seen.states("old")[-1] is State.UNLOADED


async def test_what_makes_room_makes_it_for_nobody_else(tmp_path: Path) -> None:
    memory = Memory(1)
    async with bench(tmp_path, devices=memory, backend=LINGERING) as on:
        on.backend.behaviours["old"] = {"stubborn": True}
        await on.fleet.load(on.spec(), "old", activation=Activation.NEVER)
        old = await on.seen.state(State.LOADED, model_id="old")
        memory.taken = 1
        await on.fleet.load(on.spec(), "new", evict=True)
        memory.taken = 0
        assert on.fleet.get("old").state is State.UNLOADING
        with pytest.raises(Fault) as refused:
            await on.fleet.load(on.spec(), "thief")
        assert refused.value.reason is Reason.DEVICE_MEMORY_INSUFFICIENT
        os.kill(old.pid, signal.SIGKILL)
        assert (await on.seen.state(State.LOADED, State.ERROR, model_id="new")).state is State.LOADED


async def test_who_waits_for_room_is_not_in_the_way_of_who_has_got_it(tmp_path: Path) -> None:
    memory = Memory(2)
    async with bench(tmp_path, devices=memory, backend=LINGERING) as on:
        on.backend.behaviours["old"] = {"stubborn": True}
        await two_loaded(on, memory)
        old = on.fleet.get("old")
        assert (await on.fleet.load(on.spec(), "third", evict=True)).evicted == ("old",)
        assert (await on.fleet.load(on.spec(), "fourth", evict=True)).evicted == ("new",)
        memory.taken = 1
        assert (await on.seen.state(State.LOADED, State.ERROR, model_id="fourth")).state is State.LOADED
        assert on.fleet.get("old").state is State.UNLOADING
        os.kill(old.pid, signal.SIGKILL)
        assert (await on.seen.state(State.LOADED, State.ERROR, model_id="third")).state is State.LOADED


async def test_two_loads_at_once_do_not_count_on_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[int] = []
    both = anyio.Event()

    async def together(*args: Any) -> Any:
        found = await planning.plan_with_room(*args)
        planned.append(found[1])
        if len(planned) == 2:
            both.set()
        await both.wait()
        return found

    async def memory_returned(_pids: object, _seconds: float) -> bool:
        await freed.wait()
        return True

    monkeypatch.setattr("slipway_runner.models.load.plan_with_room", together)
    memory, freed = Memory(2), anyio.Event()
    async with bench(tmp_path, devices=memory, memory_returned=memory_returned) as on:
        both.set()
        await two_loaded(on, memory)
        planned.clear()
        both = anyio.Event()
        evicted: dict[str, tuple[str, ...]] = {}

        async def load(name: str) -> None:
            evicted[name] = (await on.fleet.load(on.spec(), name, evict=True)).evicted

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load, "third")
            tasks.start_soon(load, "fourth")
        assert planned == [1, 1, 1]  # one of them had to plan again
        assert sorted(evicted.values()) == [("new",), ("old",)]
        memory.taken = 0
        freed.set()
        for name in evicted:
            assert (await on.seen.state(State.LOADED, State.ERROR, model_id=name)).state is State.LOADED


async def test_a_load_that_plans_again_looks_at_the_memory_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[int] = []

    async def meanwhile(*args: Any) -> Any:
        found = await planning.plan_with_room(*args)
        planned.append(found[1])
        if len(planned) == 1:  # what the other has claimed is in use now
            await on.seen.state(State.LOADED, model_id="other")
            memory.taken += 1
        return found

    memory = Memory(2)
    async with bench(tmp_path, devices=memory) as on:
        await on.fleet.load(on.spec(), "old", activation=Activation.NEVER)
        await on.seen.state(State.LOADED, model_id="old")
        memory.taken = 1
        await on.fleet.load(on.spec(), "other", activation=Activation.NEVER)
        monkeypatch.setattr("slipway_runner.models.load.plan_with_room", meanwhile)
        assert (await on.fleet.load(on.spec(), "new", evict=True)).evicted == ("old",)
        assert planned == [1, 1]


async def test_memory_that_did_not_come_back_fails_the_load(tmp_path: Path) -> None:
    memory = Memory(1)
    async with bench(tmp_path, devices=memory) as on:
        await on.fleet.load(on.spec(), "old", activation=Activation.NEVER)
        await on.seen.state(State.LOADED, model_id="old")
        memory.taken = 1
        await on.fleet.load(on.spec(), "new", evict=True)
        failed = await on.seen.state(State.ERROR, State.LOADED, model_id="new")
        assert failed.error is not None
        assert failed.error.reason is Reason.DEVICE_MEMORY_INSUFFICIENT


async def test_a_replacement_loads_beside_takes_over_and_then_the_old_one_goes(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        old = await on.load("old")
        assert old.active
        await on.fleet.load(on.spec(), "new", activation=Activation.NEVER, replaces="old")
        assert on.fleet.get("old").state is State.LOADED
        new = await on.seen.state(State.LOADED, model_id="new")
        assert new.active
        await on.seen.until(lambda: ("old", old.uid) in on.seen.gone)
        order = [(told.id, told.state) for told in on.seen.models]
        assert order.index(("new", State.LOADED)) < order.index(("old", State.UNLOADING))
        assert on.seen.models[order.index(("old", State.UNLOADING))].message.startswith("new has taken over: ")
        never_without = [told for told in on.seen.models if told.id == "old" and told.state is State.LOADED]
        assert not never_without[-1].active
        assert on.fleet.active(new.task).id == "new"


async def test_a_model_that_is_loaded_already_takes_over_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        old = await on.load("old")
        await on.fleet.load(on.spec(), "new", activation=Activation.NEVER)
        await on.seen.state(State.LOADED, model_id="new")
        would = await on.fleet.load(on.spec(), "new", replaces="old", validate_only=True)
        assert (would.existing, on.fleet.get("old").state) == (True, State.LOADED)
        joined = await on.fleet.load(on.spec(), "new", replaces="old")
        assert (joined.existing, joined.model.active) == (True, True)
        assert on.fleet.get("old").state is State.UNLOADING
        assert not on.fleet.get("old").active
        await on.seen.until(lambda: ("old", old.uid) in on.seen.gone)
        assert on.fleet.active(old.task).id == "new"


async def test_a_model_that_is_loading_already_takes_over_when_it_is_loaded(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        old = await on.load("old")
        on.backend.behaviours["new"] = {"lines": [None]}
        await on.fleet.load(on.spec(), "new", activation=Activation.NEVER)
        assert (await on.fleet.load(on.spec(), "new", replaces="old")).existing
        assert on.fleet.get("old").state is State.LOADED
        await on.seen.until(lambda: on.fleet.supervisor("new").attached is not None)
        tell_on(on.fleet, "new")
        assert (await on.seen.state(State.LOADED, model_id="new")).active
        await on.seen.until(lambda: ("old", old.uid) in on.seen.gone)


async def test_who_replaces_a_model_of_another_task_is_not_active_for_it(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        await on.load("embeds", task=Task.EMBED)
        await on.fleet.load(on.spec(), "new", activation=Activation.NEVER, replaces="embeds")
        assert not (await on.seen.state(State.LOADED, model_id="new")).active
        await on.seen.until(lambda: any(model_id == "embeds" for model_id, _ in on.seen.gone))

        embeds = await on.load("embeds", task=Task.EMBED)
        assert not (await on.fleet.load(on.spec(), "new", replaces="embeds")).model.active
        await on.seen.until(lambda: ("embeds", embeds.uid) in on.seen.gone)

        await on.load("embeds", task=Task.EMBED)
        await on.fleet.load(on.spec(), "late", activation=Activation.NEVER)
        await on.fleet.load(on.spec(), "late", replaces="embeds")
        assert not (await on.seen.state(State.LOADED, model_id="late")).active
        with pytest.raises(Fault) as none:
            on.fleet.active(Task.GENERATE)
        assert none.value.reason is Reason.NO_ACTIVE_MODEL


async def test_a_model_takes_over_from_nobody_while_it_is_restarted(tmp_path: Path) -> None:
    async with bench(tmp_path, numbers=replace(QUICK, first_delay=600.0, longest_delay=600.0)) as on:
        await on.load("old")
        new = await on.load("new")
        os.kill(new.pid, signal.SIGKILL)
        await on.seen.state(State.RESTARTING, model_id="new")
        with pytest.raises(Fault) as refused:
            await on.fleet.load(on.spec(), "new", replaces="old")
        assert refused.value.reason is Reason.MODEL_NOT_LOADED
        assert (on.fleet.get("new").state, on.fleet.get("old").state) == (State.RESTARTING, State.LOADED)


async def test_a_replacement_that_fails_leaves_the_old_one_as_it_is(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        await on.load("old")
        on.backend.behaviours["new"] = {"fail": 1}
        await on.fleet.load(on.spec(), "new", replaces="old")
        await on.seen.state(State.ERROR, model_id="new")
        assert on.fleet.get("old").state is State.LOADED
        assert on.fleet.get("old").active


async def test_where_both_do_not_fit_the_old_one_goes_first_only_if_told_so(tmp_path: Path) -> None:
    memory = Memory(1)
    async with bench(tmp_path, devices=memory) as on:
        await on.load("old")
        memory.taken = 1
        with pytest.raises(Fault) as refused:
            await on.fleet.load(on.spec(), "new", replaces="old")
        assert refused.value.reason is Reason.DEVICE_MEMORY_INSUFFICIENT
        loading = await on.fleet.load(on.spec(), "new", activation=Activation.NEVER, replaces="old", unload_first=True)
        assert loading.evicted == ("old",)
        memory.taken = 0
        new = await on.seen.state(State.LOADED, model_id="new")
        assert new.active
        assert [model.id for model in on.fleet.list()] == ["new"]


async def test_a_model_replaces_neither_itself_nor_nobody(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        await on.load("m")
        with pytest.raises(Fault) as itself:
            await on.fleet.load(on.spec(), "m", replaces="m")
        assert itself.value.reason is Reason.INVALID_FIELDS
        assert [wrong.field for wrong in itself.value.fields] == ["replaces"]
        with pytest.raises(Fault) as nobody:
            await on.fleet.load(on.spec(), "n", replaces="x")
        assert nobody.value.reason is Reason.MODEL_NOT_FOUND


async def test_an_idle_model_is_unloaded_and_a_used_one_is_not(tmp_path: Path) -> None:
    use = Use()
    async with bench(tmp_path, numbers=replace(QUICK, use_scan=0.05), use_of=use) as on:
        busy = await on.load("busy", idle_ttl=0.6)
        use.used = {busy.uid: Used(1, 0.0)}
        await on.load("idle", idle_ttl=0.3)
        await on.load("patient")
        await on.seen.until(lambda: any(model_id == "idle" for model_id, _ in on.seen.gone))
        leaving = next(told for told in on.seen.models if told.state is State.UNLOADING)
        assert leaving.message.startswith("no request for 0.3 s: ")
        with anyio.move_on_after(0.8):
            await anyio.sleep_forever()
        assert [model.id for model in on.fleet.list()] == ["busy", "patient"]
        assert on.fleet.get("busy").use_time
        use.used = {busy.uid: Used(0, time.time())}
        await on.seen.until(lambda: any(model_id == "busy" for model_id, _ in on.seen.gone))


async def test_a_clock_that_is_set_forward_makes_nobody_idle(tmp_path: Path) -> None:
    use, ahead = Use(), 0.0
    async with bench(
        tmp_path, numbers=replace(QUICK, use_scan=0.05), use_of=use, wall=lambda: time.time() + ahead
    ) as on:
        await on.load("m", idle_ttl=30.0)
        ahead = 3600.0
        with anyio.move_on_after(0.5):
            await anyio.sleep_forever()
        assert on.fleet.get("m").state is State.LOADED


async def test_a_gateway_that_does_not_answer_makes_nobody_idle(tmp_path: Path) -> None:
    use = Use(broken=True)
    async with bench(tmp_path, numbers=replace(QUICK, use_scan=0.05), use_of=use) as on:
        await on.load("m", idle_ttl=0.1)
        with anyio.move_on_after(0.5):
            await anyio.sleep_forever()
        assert on.fleet.get("m").state is State.LOADED


# What the kilobyte's model takes with a context of a tebibyte of main memory: too much, whatever else is there.
TOO_LONG = replace(SPEC, settings=Settings(context_length=(1 << 40) // BYTES_PER_TOKEN))


@pytest.fixture
def registry(tmp_path: Path) -> FakeSnapshots:
    (tmp_path / "snapshot").mkdir()
    registry = FakeSnapshots(tmp_path / "snapshot", content=gguf_with_a_context())
    registry.done.set()
    return registry


async def test_a_context_that_does_not_fit_is_refused_at_once_where_the_header_is_in_the_cache(
    tmp_path: Path, registry: FakeSnapshots
) -> None:
    (registry.root / FILE).write_bytes(registry.content)
    async with bench(tmp_path, snapshots=registry) as on:
        with pytest.raises(Fault) as refused:
            await on.fleet.load(TOO_LONG, "m")
        assert refused.value.reason is Reason.DEVICE_MEMORY_INSUFFICIENT
        assert "1024.3 GiB" in refused.value.text
        assert not registry.wants


async def test_a_context_that_does_not_fit_is_refused_before_a_process_starts_when_the_header_was_fetched(
    tmp_path: Path, registry: FakeSnapshots
) -> None:
    async with bench(tmp_path, snapshots=registry) as on:
        await on.fleet.load(TOO_LONG, "m")
        failed = await on.seen.state(State.ERROR, State.LOADED)
        assert failed.error is not None
        assert failed.error.reason is Reason.DEVICE_MEMORY_INSUFFICIENT
        assert "1024.3 GiB" in failed.error.text
        assert not any(told.pid for told in on.seen.models)
        assert not (on.fleet.supervisor("m").folder / "log").exists()


async def test_what_a_fetched_header_adds_is_claimed_before_the_process_starts(
    tmp_path: Path, registry: FakeSnapshots
) -> None:
    async with bench(tmp_path, snapshots=registry) as on:
        on.backend.behaviours["m"] = {"hang": True}
        spec = replace(SPEC, settings=Settings(context_length=1 << 20))
        before = (await on.fleet.load(spec, "m")).model.planned_bytes
        await on.seen.until_true(lambda: on.fleet.supervisor("m").attached is not None)
        now = on.fleet.get("m").planned_bytes
        assert now - before == (1 << 20) * BYTES_PER_TOKEN
        with pytest.raises(Fault) as refused:  # both together are more than there is
            await on.fleet.load(replace(SPEC, settings=Settings(context_length=1 << 20)), "n")
        assert refused.value.reason is Reason.DEVICE_MEMORY_INSUFFICIENT
