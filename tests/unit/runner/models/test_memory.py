import itertools
from dataclasses import replace

import anyio
import pytest
from slipway_runner.devices.device import Device, DeviceKind, DeviceProcess
from slipway_runner.models import memory
from slipway_runner.models.memory import memory_back

pytestmark = pytest.mark.anyio

GPU = Device(uuid="GPU-1", kind=DeviceKind.CUDA, index=0, name="H", memory_total=9, memory_used=1, memory_free=8)


async def test_memory_is_back_when_no_device_shows_the_processes() -> None:
    looks = iter([(7, 8), (8,), (9,)])

    def devices() -> tuple[Device, ...]:
        pids = next(looks)
        return (GPU, replace(GPU, processes=tuple(DeviceProcess(pid=pid, memory_bytes=1) for pid in pids)))

    with anyio.fail_after(90):
        assert await memory_back(devices, (7, 8), 60.0)
    assert next(looks, None) is None


async def test_memory_that_stays_is_not_back() -> None:
    held = replace(GPU, processes=(DeviceProcess(pid=7, memory_bytes=None),))
    assert not await memory_back(lambda: (held,), (7,), 0.3)


async def test_other_processes_do_not_matter() -> None:
    held = replace(GPU, processes=(DeviceProcess(pid=9, memory_bytes=1),))
    assert await memory_back(lambda: (held,), (7,), 60.0)


@pytest.mark.parametrize(
    "shown", [(), (DeviceProcess(pid=1 << 22, memory_bytes=1),)], ids=["nobody", "foreign numbers"]
)
async def test_where_processes_are_hidden_memory_is_back_when_no_more_becomes_free(
    shown: tuple[DeviceProcess, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_SETTLE_SECONDS", 0.01)
    gib = 1 << 30
    used = iter([90, 60, 60, 40, 40, 40])
    looks = 0

    def devices() -> tuple[Device, ...]:
        nonlocal looks
        looks += 1
        now = next(used) * gib
        return (replace(GPU, memory_total=100 * gib, memory_used=now, memory_free=100 * gib - now, processes=shown),)

    with anyio.fail_after(90):
        assert await memory_back(devices, (7,), 60.0)
    assert looks == 6


async def test_memory_that_goes_on_becoming_free_is_not_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_SETTLE_SECONDS", 0.01)
    free = itertools.count(1)

    def devices() -> tuple[Device, ...]:
        return (replace(GPU, memory_used=2 << 30, memory_free=next(free)),)

    assert not await memory_back(devices, (7,), 0.2)


async def test_main_memory_in_use_hides_nobody() -> None:
    cpu = replace(GPU, kind=DeviceKind.CPU, memory_used=2 << 30)
    with anyio.fail_after(30):
        assert await memory_back(lambda: (cpu,), (7,), 60.0)
