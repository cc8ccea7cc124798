"""Bringing a model's processes down until they and their memory are gone, and saying so when they will not go."""

import os
from collections.abc import Callable
from contextlib import suppress

import anyio
from slipway_service.fault import Reason

from slipway_runner.backends.base import StopStep
from slipway_runner.models.attached import Attached
from slipway_runner.models.means import MemoryReturned
from slipway_runner.process import stop
from slipway_runner.process.proc import ProcessId
from slipway_runner.process.stop import Rung
from slipway_runner.progress.signals import Cause

# For a ladder without a SIGKILL of its own.
_KILL_SECONDS = 10.0

# A SIGKILL that had no effect is repeated this often: the driver or file system that holds the process may let go.
_LEAK_RETRY_SECONDS = 10.0


async def bring_down(
    attached: Attached,
    ladder: tuple[StopStep, ...],
    *,
    polite: bool,
    memory_returned: MemoryReturned,
    memory_seconds: float,
    leaked: Callable[[Cause, tuple[int, ...]], None],
) -> None:
    """Return when nothing of it is left, however long that takes.

    Args:
        attached: the process.
        ladder: its backend's.
        polite: climb the ladder; otherwise kill at once.
        memory_returned: how the return of its device memory is known.
        memory_seconds: how long that may take before it counts as leaked.
        leaked: told once, with the pids, when it will not go.
    """
    pids = attached.holders
    kill_seconds = max((step.wait_seconds for step in ladder if step.signal == stop.KILL), default=_KILL_SECONDS)
    rungs = tuple(Rung(step.signal, step.wait_seconds) for step in ladder if step.signal != stop.KILL)
    family = attached.running.family
    if polite:
        _say_farewell(attached)
    survivors = await stop.stop(family, rungs if polite else (), kill_seconds=kill_seconds)
    if survivors:
        leaked(_unkillable(survivors), tuple(one.pid for one in survivors))
    while survivors:
        survivors = await stop.stop(family, (), kill_seconds=_LEAK_RETRY_SECONDS)
    attached.running.reap()
    if not await memory_returned(pids, memory_seconds):
        leaked(Cause(Reason.LEAKED, f"the processes {_listed(pids)} are gone, their device memory is not back"), pids)
        await _memory_back(memory_returned, pids, memory_seconds)


def _say_farewell(attached: Attached) -> None:
    """Tell a backend that reads its standard input that it may go. If nobody reads, the ladder does without."""
    fifo = attached.started.stdin
    if fifo is None or not attached.launch.farewell:
        return
    with suppress(OSError):
        descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(descriptor, attached.launch.farewell)
        finally:
            os.close(descriptor)


async def _memory_back(memory_returned: MemoryReturned, pids: tuple[int, ...], seconds: float) -> None:
    back = False
    while not back:
        back = await memory_returned(pids, seconds)
        await anyio.lowlevel.checkpoint()


def _unkillable(survivors: tuple[ProcessId, ...]) -> Cause:
    pids = tuple(one.pid for one in survivors)
    return Cause(
        Reason.LEAKED, f"the processes {_listed(pids)} cannot be killed; a hung device or file system may hold them"
    )


def _listed(pids: tuple[int, ...]) -> str:
    return ", ".join(map(str, pids))
