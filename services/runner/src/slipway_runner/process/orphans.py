"""What an earlier runner started and nobody looks after any more: found by its tag, and ended."""

import signal
from collections.abc import Collection

import anyio

from slipway_runner.process import members, pidfd
from slipway_runner.process.proc import ProcessId

_RESCAN_SECONDS = 0.25


async def reap(instance: str, keep: Collection[str], *, seconds: float) -> tuple[ProcessId, ...]:
    """Kill every process of the runner `instance` whose family is not in `keep`.

    Args:
        instance: the runner's tag.
        keep: tags of the families that were adopted.
        seconds: how long to go on killing.

    Returns:
        Those that could not be ended.
    """
    with anyio.move_on_after(seconds):
        while found := _orphans(instance, keep):
            for one in found:
                pidfd.send(one, signal.SIGKILL)
            with anyio.move_on_after(_RESCAN_SECONDS):
                await pidfd.all_exited(found)
        return ()
    return _orphans(instance, keep)


def _orphans(instance: str, keep: Collection[str]) -> tuple[ProcessId, ...]:
    return tuple(one for tag, found in members.tagged(instance).items() if tag not in keep for one in found)
