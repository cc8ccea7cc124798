from dataclasses import replace

import anyio
import pytest
from slipway_runner.devices.device import Device, DeviceKind, DeviceProcess
from slipway_runner.models.memory import memory_back

pytestmark = pytest.mark.anyio

GPU = Device(uuid="GPU-1", kind=DeviceKind.CUDA, index=0, name="H", memory_total=9, memory_used=1, memory_free=8)


async def test_memory_is_back_when_no_device_shows_the_processes() -> None:
    looks = iter([(7, 8), (8,), (9,)])

    def devices() -> tuple[Device, ...]:
        pids = next(looks)
        return (GPU, replace(GPU, processes=tuple(DeviceProcess(pid=pid, memory_bytes=1) for pid in pids)))

    with anyio.fail_after(10):
        assert await memory_back(devices, (7, 8), 5.0)
    assert next(looks, None) is None


async def test_memory_that_stays_is_not_back() -> None:
    held = replace(GPU, processes=(DeviceProcess(pid=7, memory_bytes=None),))
    assert not await memory_back(lambda: (held,), (7,), 0.3)


async def test_other_processes_do_not_matter() -> None:
    held = replace(GPU, processes=(DeviceProcess(pid=9, memory_bytes=1),))
    assert await memory_back(lambda: (held,), (7,), 5.0)
