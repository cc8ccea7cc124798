"""What RunnerService says of the host while models load."""

from pathlib import Path
from typing import cast

import pytest
from slipway.runner.v1 import runner_service_pb2 as pb
from slipway_client import Registry
from slipway_runner.devices.inventory import Devices, Inventory
from slipway_runner.models.states import State
from slipway_runner.rpc.runner import RunnerService
from slipway_service.broadcast import Broadcast
from slipway_service.eventlog import EventLog
from slipway_service.handlers import Context
from slipway_service.health import Health

from tests.integration.runner.fakes import backends_of, bench, cpu

pytestmark = pytest.mark.anyio

TOTAL = 1 << 40
NO_CONTEXT = cast("Context", None)


class MainMemory(Devices):
    """A host without GPUs."""

    def look(self) -> Inventory:
        return Inventory(cpu=cpu(TOTAL)[0])


async def test_what_a_load_has_claimed_is_reserved_and_not_free_until_it_is_loaded(tmp_path: Path) -> None:
    async with bench(tmp_path) as on, Registry.connect("127.0.0.1:1") as registry:
        service = RunnerService(
            on.fleet,
            Broadcast(EventLog("epoch")),
            devices=MainMemory(),
            backends=backends_of(on.backend),
            registry=registry,
            gateway=str,
            hub=tmp_path,
            health=Health(),
        )

        async def memory() -> tuple[int, int]:
            (device,) = (await service.GetRunner(pb.GetRunnerRequest(), NO_CONTEXT)).runner.devices
            return device.reserved_bytes, device.memory.free_bytes

        on.backend.behaviours["hung"] = {"hang": True}
        planned = (await on.fleet.load(on.spec(), "hung")).model.planned_bytes
        assert await memory() == (planned, TOTAL - planned)
        on.fleet.unload("hung")
        await on.seen.state(State.UNLOADED, model_id="hung")
        assert await memory() == (0, TOTAL)
