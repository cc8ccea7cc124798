"""What a backend wrote, read while it is being unloaded."""

from pathlib import Path
from signal import SIGKILL, SIGTERM

import anyio
import pytest
from slipway_runner.backends.base import StopStep
from slipway_runner.models.states import State
from slipway_runner.rpc.logs import LogReader

from tests.integration.runner.fakes import FakeBackend, bench

pytestmark = pytest.mark.anyio


async def test_who_follows_a_log_reads_what_the_backend_says_when_it_is_stopped(tmp_path: Path) -> None:
    patient = FakeBackend(stop_ladder=(StopStep(SIGTERM, 30.0), StopStep(SIGKILL, 5.0)))
    async with bench(tmp_path, backend=patient) as on:
        model = await on.load(behave={"lines": ["hello"], "farewell": "goodbye"})
        assert model.state is State.LOADED
        folder = on.fleet.supervisor("m").folder
        read = ""
        with anyio.fail_after(60):
            async for piece in LogReader(on.fleet).read("m", 0, follow=True):
                read += piece.text
                if "READY" in read and folder.exists():  # its last words are written while nobody reads
                    on.fleet.unload("m")
                    await on.seen.until_true(lambda: not folder.exists())
        assert read.splitlines() == ["hello", "READY", "goodbye"]
