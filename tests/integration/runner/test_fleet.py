"""Loading and unloading on real processes."""

from pathlib import Path

import pytest
from slipway_runner.models.states import State
from slipway_runner.process import proc

from tests.integration.runner.fakes import bench

pytestmark = pytest.mark.anyio


async def test_a_model_is_loaded_answers_and_is_gone_after_unload(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        model = await on.load()
        assert model.state is State.LOADED
        assert model.port
        assert model.active
        stat = proc.stat(model.pid)
        assert stat is not None
        assert on.fleet.unload("m").state is State.UNLOADING
        await on.seen.until(lambda: on.seen.gone == [("m", model.uid)])
        assert on.seen.states() == [State.LOADING, State.LOADED, State.UNLOADING, State.UNLOADED]
        assert proc.stat(model.pid) is None
        assert on.fleet.list() == []
