"""Pins that are asked for, lost, or nobody's any more."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import pytest
from slipway_runner.models.record import Model
from slipway_runner.models.release import ReleasePolicy
from slipway_runner.models.snapshots import Held
from slipway_runner.models.states import State

from tests.integration.runner.fake_registry import SPEC, FakeSnapshots
from tests.integration.runner.fakes import QUICK, Bench, bench

pytestmark = pytest.mark.anyio

NUMBERS = replace(QUICK, release_look=0.02)


@dataclass
class Traffic:
    """A gateway with one model, `m`."""

    in_flight: int = 0
    last_use: float = 0.0
    asked: int = 0
    away: bool = False
    on: Bench | None = None

    async def use_of(self) -> Mapping[str, "Traffic"]:
        self.asked += 1
        if self.away:
            raise ConnectionError("no gateway")
        return {model.uid: self for model in self.on.fleet.list()} if self.on else {}


@pytest.fixture
def registry(tmp_path: Path) -> FakeSnapshots:
    (tmp_path / "snapshot").mkdir()
    found = FakeSnapshots(tmp_path / "snapshot")
    found.done.set()
    return found


async def load(on: Bench) -> Model:
    await on.fleet.load(SPEC, "m")
    return await on.seen.state(State.LOADED)


async def rounds(traffic: Traffic, count: int) -> None:
    """Wait until the traffic was asked for so many times."""
    until = traffic.asked + count
    with anyio.fail_after(60):
        while traffic.asked < until:  # noqa: ASYNC110
            await anyio.sleep(0.01)


@pytest.mark.parametrize("policy", [ReleasePolicy.IDLE, ReleasePolicy.ALWAYS])
async def test_an_idle_model_is_unloaded_and_says_why(
    tmp_path: Path, registry: FakeSnapshots, policy: ReleasePolicy
) -> None:
    async with bench(tmp_path, numbers=NUMBERS, snapshots=registry, release=policy) as on:
        model = await load(on)
        registry.want_back(model.uid)
        await on.seen.until(lambda: bool(on.seen.gone))
        await on.seen.until_true(lambda: not registry.held_for)
        unloading = next(seen for seen in on.seen.models if seen.state is State.UNLOADING)
        assert unloading.message.startswith("its files are to be deleted: ")


@pytest.mark.parametrize("policy", [ReleasePolicy.NEVER, ReleasePolicy.IDLE])
async def test_one_that_may_not_go_stays(tmp_path: Path, registry: FakeSnapshots, policy: ReleasePolicy) -> None:
    traffic = Traffic(in_flight=1)
    async with bench(tmp_path, numbers=NUMBERS, snapshots=registry, release=policy, use_of=traffic.use_of) as on:
        traffic.on = on
        model = await load(on)
        registry.want_back(model.uid)
        if policy is ReleasePolicy.IDLE:
            await rounds(traffic, 3)
            traffic.away = True
            await rounds(traffic, 3)
            traffic.away = False
        else:
            await on.seen.until_true(lambda: bool(registry.refused))
            assert [uid for uid, _ in registry.refused] == [model.uid]
        assert on.fleet.get("m").state is State.LOADED
        registry.want_back(model.uid, wanted=False)
        await on.seen.until_true(lambda: registry.heard == (Held(holder=model.uid),))
        traffic.in_flight = 0
        await on.load("other")  # long enough for it to go, if it did
        assert on.fleet.get("m").state is State.LOADED
        assert registry.held_for == {model.uid}


async def test_one_in_use_goes_after_its_drain_where_all_are_released(tmp_path: Path, registry: FakeSnapshots) -> None:
    traffic = Traffic(in_flight=1)
    policy = ReleasePolicy.ALWAYS
    async with bench(tmp_path, numbers=NUMBERS, snapshots=registry, release=policy, use_of=traffic.use_of) as on:
        traffic.on = on
        model = await load(on)
        registry.want_back(model.uid)
        await on.seen.until(lambda: bool(on.seen.gone))


async def test_one_in_use_goes_when_its_last_request_has_ended(tmp_path: Path, registry: FakeSnapshots) -> None:
    traffic = Traffic(in_flight=1)
    async with bench(tmp_path, numbers=NUMBERS, snapshots=registry, use_of=traffic.use_of) as on:
        traffic.on = on
        model = await load(on)
        registry.want_back(model.uid)
        await rounds(traffic, 3)
        assert on.fleet.get("m").state is State.LOADED
        traffic.in_flight = 0
        await on.seen.until(lambda: bool(on.seen.gone))


async def test_a_load_is_not_taken_for_idle(tmp_path: Path, registry: FakeSnapshots) -> None:
    behaviours = {"m": {"lines": ["one", "two"], "line_pause": 0.3}}
    async with bench(tmp_path, numbers=NUMBERS, snapshots=registry) as on:
        on.backend.behaviours.update(behaviours)
        await on.fleet.load(SPEC, "m")
        await on.seen.until_true(lambda: bool(registry.held_for))
        registry.want_back(on.fleet.get("m").uid)
        await on.seen.until(lambda: bool(on.seen.gone))
        assert on.seen.states() == [State.LOADING, State.LOADED, State.UNLOADING, State.UNLOADED]


async def test_a_pin_whose_time_ran_out_is_taken_again_when_the_registry_is_back(
    tmp_path: Path, registry: FakeSnapshots
) -> None:
    async with bench(tmp_path, numbers=NUMBERS, snapshots=registry) as on:
        model = await load(on)
        registry.away = True
        registry.pins.clear()
        registry.tell()
        registry.away = False
        registry.tell()
        await on.seen.until_true(lambda: registry.held_for == {model.uid})


async def test_a_pin_that_could_not_be_taken_is_tried_for_until_it_is_there(
    tmp_path: Path, registry: FakeSnapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slipway_runner.models.pins.PIN_RETRY_SECONDS", 0.02)
    registry.bypassed = True
    registry.away_for_pins = 3
    async with bench(tmp_path, numbers=NUMBERS, snapshots=registry) as on:
        model = await load(on)
        assert model.registry_bypassed
        await on.seen.until_true(lambda: registry.held_for == {model.uid})
        assert registry.away_for_pins == 0


async def test_pins_of_models_that_are_no_more_are_given_back(tmp_path: Path, registry: FakeSnapshots) -> None:
    registry.pins["gone"] = Held(holder="gone")
    async with bench(tmp_path, numbers=NUMBERS, snapshots=registry) as on:
        await on.seen.until_true(lambda: not registry.held_for)
        await load(on)
        registry.away = True
        on.fleet.unload("m")
        await on.seen.until(lambda: bool(on.seen.gone))
        assert registry.held_for
        registry.away = False
        registry.tell()
        await on.seen.until_true(lambda: not registry.held_for)


async def test_a_failed_load_holds_nothing(tmp_path: Path, registry: FakeSnapshots) -> None:
    async with bench(tmp_path, numbers=NUMBERS, snapshots=registry) as on:
        on.backend.behaviours["m"] = {"fail": 1}
        await on.fleet.load(SPEC, "m")
        failed = await on.seen.state(State.ERROR)
        await on.seen.until_true(lambda: not registry.held_for)
        registry.pins[failed.uid] = Held(holder=failed.uid)  # the registry was away when it was given back
        registry.tell()
        await on.seen.until_true(lambda: not registry.held_for)
