"""Making room: eviction, replacement, idleness."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio
import pytest
from slipway_runner.devices.device import Device
from slipway_runner.models.record import Activation
from slipway_runner.models.states import State
from slipway_service.fault import Fault, Reason

from tests.integration.runner.fakes import QUICK, Bench, bench, cpu

pytestmark = pytest.mark.anyio

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
        memory.taken -= 1
        assert (await on.seen.state(State.LOADED, State.ERROR, model_id="third")).state is State.LOADED
        assert [model.id for model in on.fleet.list()] == ["old", "third"]


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
    async with bench(tmp_path, devices=memory) as on:
        on.backend.behaviours["old"] = {"stubborn": True}  # takes a second to end
        await on.fleet.load(on.spec(), "old", activation=Activation.NEVER)
        await on.seen.state(State.LOADED, model_id="old")
        memory.taken = 1
        await on.fleet.load(on.spec(), "new", evict=True)
        await on.seen.until(lambda: on.fleet.get("new").message == "waiting for old to be unloaded")
        assert on.fleet.supervisor("new").attached is None
        memory.taken = 0
        await on.seen.state(State.LOADED, model_id="new")
        assert on.seen.states("old")[-1] is State.UNLOADED


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
        never_without = [told for told in on.seen.models if told.id == "old" and told.state is State.LOADED]
        assert not never_without[-1].active
        assert on.fleet.active(new.task).id == "new"


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
        with anyio.move_on_after(0.8):
            await anyio.sleep_forever()
        assert [model.id for model in on.fleet.list()] == ["busy", "patient"]
        assert on.fleet.get("busy").use_time
        use.used = {busy.uid: Used(0, time.time())}
        await on.seen.until(lambda: any(model_id == "busy" for model_id, _ in on.seen.gone))


async def test_a_gateway_that_does_not_answer_makes_nobody_idle(tmp_path: Path) -> None:
    use = Use(broken=True)
    async with bench(tmp_path, numbers=replace(QUICK, use_scan=0.05), use_of=use) as on:
        await on.load("m", idle_ttl=0.1)
        with anyio.move_on_after(0.5):
            await anyio.sleep_forever()
        assert on.fleet.get("m").state is State.LOADED
