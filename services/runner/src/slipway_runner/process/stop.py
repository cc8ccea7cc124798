"""Stopping a backend until nothing of it is left, or saying what is.

The group is asked politely, rung by rung, as its backend is known to need it. Whatever is left after the last rung,
in the group or outside it, is killed, again and again, because a process may fork between being seen and being
killed.
"""

import os
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import anyio

from slipway_runner.process import cgroup, members, pidfd, proc
from slipway_runner.process.members import Family, Members
from slipway_runner.process.proc import ProcessId

# How often living members are looked up again while waiting for those already known: what was forked meanwhile shows
# then.
_RESCAN_SECONDS = 0.25


KILL = signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Rung:
    """A signal to the group, and the seconds it then has before the next rung."""

    signal: signal.Signals
    seconds: float


async def stop(family: Family, ladder: Sequence[Rung], *, kill_seconds: float) -> tuple[ProcessId, ...]:
    """End every process of the family.

    Args:
        family: whose processes.
        ladder: polite signals, in order; empty kills at once.
        kill_seconds: how long to go on killing before giving up. A process in an uninterruptible wait (a hung driver or
            file system) cannot be killed at all.

    Returns:
        Those that could not be ended; empty when all are gone.
    """
    for rung in ladder:
        found = members.find(family)
        if not found.in_group:
            break
        _signal_group(family, found, rung.signal)
        if await _group_gone(family, rung.seconds):
            break
    if family.cgroup is not None and members.find(family):
        cgroup.kill(family.cgroup)
    survivors = await kill(lambda: members.find(family).all, kill_seconds)
    if not survivors and family.cgroup is not None:
        cgroup.remove(family.cgroup)
    return survivors


def _signal_group(family: Family, found: Members, number: signal.Signals) -> None:
    # The group's number is ours while a member of it lives, and one was seen just now.
    try:
        os.killpg(family.leader.pid, number)
    except ProcessLookupError:
        return
    except PermissionError:
        for one in found.in_group:
            pidfd.send(one, number)


async def _group_gone(family: Family, seconds: float) -> bool:
    with anyio.move_on_after(seconds):
        while in_group := members.find(family).in_group:
            with anyio.move_on_after(_RESCAN_SECONDS):
                await pidfd.all_exited(in_group)
        return True
    return False


async def kill(find: Callable[[], Iterable[ProcessId]], seconds: float) -> tuple[ProcessId, ...]:
    """Kill whom `find` finds, again and again, until all of them have ended and it finds nobody.

    Who was found once is waited for, found again or not: a killed process loses the environment that tells whose it is
    before its last thread has given back the memory.

    Returns:
        Those that `seconds` of killing could not end.
    """
    found: set[ProcessId] = set()

    def left() -> set[ProcessId]:
        found.update(find())
        found.intersection_update([one for one in found if proc.alive(one)])
        return found

    with anyio.move_on_after(seconds):
        while left():
            for one in found:
                pidfd.send(one, KILL)
            with anyio.move_on_after(_RESCAN_SECONDS):
                await pidfd.all_exited(found)
        return ()
    return tuple(sorted(left()))
