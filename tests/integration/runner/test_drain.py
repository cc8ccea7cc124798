"""A runner that takes no new models."""

from pathlib import Path

import anyio
import pytest
from slipway_runner.models.gate import DRAINED_RETRY_SECONDS
from slipway_runner.models.snapshots import Description
from slipway_runner.models.spec import RepoSource
from slipway_runner.models.states import State
from slipway_service.fault import Fault, Reason

from tests.integration.runner.fake_registry import SPEC, FakeSnapshots
from tests.integration.runner.fakes import bench

pytestmark = pytest.mark.anyio


async def test_new_models_are_refused_and_those_there_are_unloaded_with_the_reason(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        await on.load("m")
        on.fleet.drain()
        assert on.fleet.draining
        assert on.fleet.get("m").state is State.UNLOADING
        assert on.fleet.get("m").message.startswith("the runner is being drained: ")
        with pytest.raises(Fault) as refused:
            await on.fleet.load(on.spec("other"), "other")
        assert refused.value.reason is Reason.DRAINING
        assert refused.value.retry_after == DRAINED_RETRY_SECONDS
        with pytest.raises(Fault):
            await on.fleet.load(on.spec("other"), "other", validate_only=True)
        await on.seen.until(lambda: bool(on.seen.gone))
        on.fleet.undrain()
        assert not on.fleet.draining
        assert (await on.load("other")).state is State.LOADED


async def test_what_is_kept_is_joined_and_what_failed_is_not_loaded_anew(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        model = await on.load("m")
        await on.load("broken", behave={"fail": 1})
        on.fleet.drain(keep_models=True)
        joined = await on.fleet.load(on.spec(), "m")
        assert (joined.existing, joined.model.uid, joined.model.state) == (True, model.uid, State.LOADED)
        with pytest.raises(Fault) as refused:
            await on.fleet.load(on.spec(), "broken")
        assert refused.value.reason is Reason.DRAINING


async def test_a_load_that_was_being_planned_does_not_slip_in(tmp_path: Path) -> None:
    asked, answer = anyio.Event(), anyio.Event()

    class Slow(FakeSnapshots):
        async def describe(self, source: RepoSource) -> Description:
            asked.set()
            await answer.wait()
            return await super().describe(source)

    refused: list[Reason] = []

    async def load() -> None:
        try:
            await on.fleet.load(SPEC, "m")
        except Fault as fault:
            refused.append(fault.reason)

    async with bench(tmp_path, snapshots=Slow(tmp_path)) as on, anyio.create_task_group() as tasks:
        tasks.start_soon(load)
        await asked.wait()
        on.fleet.drain()
        answer.set()
        with anyio.fail_after(30):
            while not refused:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        assert refused == [Reason.DRAINING]
        assert on.fleet.list() == []
