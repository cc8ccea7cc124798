"""Knowing that device memory came back: no device shows a process of a stopped model any more."""

from collections.abc import Callable, Iterable

import anyio

from slipway_runner.devices.device import Device

# Drivers give memory back within some 100 ms of the last process's end; looking costs milliseconds.
_LOOK_SECONDS = 0.1


async def memory_back(devices: Callable[[], tuple[Device, ...]], pids: Iterable[int], seconds: float) -> bool:
    """Wait until no device shows any of the processes, for so many seconds at most. Returns whether that came true.

    Where a container hides from the driver which processes are its own, devices show none, and this is true at once.
    """
    gone = frozenset(pids)
    with anyio.move_on_after(seconds):
        while _holders(await anyio.to_thread.run_sync(devices)) & gone:  # noqa: ASYNC110  # a driver tells nobody
            await anyio.sleep(_LOOK_SECONDS)
        return True
    return False


def _holders(devices: tuple[Device, ...]) -> frozenset[int]:
    return frozenset(process.pid for device in devices for process in device.processes)
