"""Knowing that device memory came back: no device shows a process of a stopped model any more."""

from collections.abc import Callable, Iterable

import anyio

from slipway_runner.devices.device import Device, DeviceKind
from slipway_runner.process import proc

# Drivers give memory back within some 100 ms of the last process's end; looking costs milliseconds.
_LOOK_SECONDS = 0.1

# Free memory that has not grown for so long has settled.
_SETTLE_SECONDS = 1.0

# What a driver holds of an idle GPU for itself; some hold 500 MiB.
_DRIVER_BYTES = 1 << 30


async def memory_back(devices: Callable[[], tuple[Device, ...]], pids: Iterable[int], seconds: float) -> bool:
    """Wait until no device shows any of the processes, for so many seconds at most. Returns whether that came true.

    Where a container hides from the driver which processes are its own, devices show none though their memory is in
    use. Then it is back when no more of it becomes free; what stays may be other models', and counts as no leak.
    """
    gone = frozenset(pids)
    with anyio.move_on_after(seconds):
        while True:
            now = await anyio.to_thread.run_sync(devices)
            if _holders(now) & gone:
                await anyio.sleep(_LOOK_SECONDS)
            elif not _processes_hidden(now):
                return True
            else:
                await anyio.sleep(_SETTLE_SECONDS)
                if _free(await anyio.to_thread.run_sync(devices)) <= _free(now):
                    return True
    return False


def _processes_hidden(devices: tuple[Device, ...]) -> bool:
    """Whether a device is in use by nobody that can be seen: none are shown, or only numbers that name nobody here."""
    return any(
        one.memory_used > _DRIVER_BYTES and not any(proc.stat(process.pid) for process in one.processes)
        for one in _gpus(devices)
    )


def _free(devices: tuple[Device, ...]) -> int:
    return sum(one.memory_free for one in _gpus(devices))


def _gpus(devices: tuple[Device, ...]) -> list[Device]:
    return [one for one in devices if one.kind is not DeviceKind.CPU and one.usable]


def _holders(devices: tuple[Device, ...]) -> frozenset[int]:
    return frozenset(process.pid for device in devices for process in device.processes)
