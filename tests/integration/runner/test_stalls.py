"""Loads that stand still, and those that only seem to."""

from pathlib import Path

import pytest
from slipway_runner.backends.base import StartLimits
from slipway_runner.models.states import State
from slipway_runner.progress import kernel
from slipway_service.fault import Reason

from tests.integration.runner.fakes import (
    Clock,
    FakeBackend,
    bench,
    running,
    tell_on,
    told,
)

pytestmark = pytest.mark.anyio

IMPATIENT = FakeBackend(start_limits=StartLimits(stall_seconds=0.5, floor_seconds=60.0))


async def test_a_silent_load_stalls_and_its_process_is_ended(tmp_path: Path) -> None:
    async with bench(tmp_path, backend=IMPATIENT) as on:
        failed = await on.load(behave={"hang": True, "children": [{"setsid": True, "stubborn": True}]})
        assert failed.state is State.ERROR
        assert failed.error is not None
        assert failed.error.reason is Reason.LOAD_STALLED
        assert "no progress for" in failed.error.text
        await on.seen.until(lambda: not on.fleet.supervisor("m").life.occupied)
        assert not [pid for told in on.seen.models for pid in told.pids if running(pid)]


async def test_a_load_that_moves_outlasts_the_stall_timeout(tmp_path: Path, clock: Clock) -> None:
    async with bench(tmp_path, backend=IMPATIENT) as on:
        on.backend.behaviours["m"] = {"lines": [line for n in range(1, 5) for line in (None, f"SHARDS {n}/4")]}
        await on.fleet.load(on.spec(), "m")
        await on.seen.until(lambda: on.fleet.supervisor("m").attached is not None)
        for n in range(1, 5):
            await clock.passes(0.4)
            tell_on(on.fleet)
            await told(on, shards_done=n)
        assert (await on.seen.state(State.LOADED, State.ERROR)).state is State.LOADED


async def test_a_load_that_hangs_after_it_has_read_some_of_its_weights_stalls(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "next_scan", lambda _: 0.05)
    async with bench(tmp_path, backend=IMPATIENT) as on:
        weights = str(on.spec().source)
        on.backend.behaviours["m"] = {"read": weights, "sizes": [500], "hang": True}
        await on.fleet.load(on.spec(), "m")
        await told(on, bytes_done=500)
        await clock.passes(0.6)
        failed = await on.seen.state(State.LOADED, State.ERROR)
        assert failed.error is not None
        assert failed.error.reason is Reason.LOAD_STALLED
        assert "no progress for" in failed.error.text


async def test_a_load_that_does_nothing_but_read_outlasts_the_stall_timeout(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "next_scan", lambda _: 0.05)
    async with bench(tmp_path, backend=IMPATIENT) as on:
        weights = str(on.spec().source)
        on.backend.behaviours["m"] = {"read": weights, "sizes": [None, 100] * 4 + [None]}
        await on.fleet.load(on.spec(), "m")
        await on.seen.until(lambda: on.fleet.supervisor("m").attached is not None)
        for n in range(1, 5):
            await clock.passes(0.4)
            tell_on(on.fleet)
            await told(on, bytes_done=100 * n)
        tell_on(on.fleet)
        assert (await on.seen.state(State.LOADED, State.ERROR)).state is State.LOADED


async def test_the_specs_own_start_timeout_counts(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        failed = await on.load(behave={"hang": True}, start_timeout=0.3)
        assert failed.error is not None
        assert failed.error.reason is Reason.LOAD_STALLED


async def test_a_load_may_be_silent_for_as_long_as_its_spec_says(tmp_path: Path) -> None:
    limits = StartLimits(stall_seconds=0.2, floor_seconds=0.4)
    async with bench(tmp_path, backend=FakeBackend(start_limits=limits)) as on:
        behave = {"lines": ["one", "two"], "line_pause": 0.6}
        assert (await on.load("patient", behave=behave, start_timeout=60.0)).state is State.LOADED
        assert (await on.load("impatient", behave={**behave, "hang": True})).state is State.ERROR


async def test_a_load_that_talks_without_getting_anywhere_meets_the_ceiling_of_its_size(tmp_path: Path) -> None:
    limits = StartLimits(stall_seconds=20.0, floor_seconds=0.5, slowest_bytes_per_second=1 << 30)
    async with bench(tmp_path, backend=FakeBackend(start_limits=limits)) as on:
        failed = await on.load(behave={"lines": ["still at it"] * 100, "line_pause": 0.1, "hang": True})
        assert failed.error is not None
        assert failed.error.reason is Reason.LOAD_STALLED
        assert "which is the most that a model of this size is given" in failed.error.text
