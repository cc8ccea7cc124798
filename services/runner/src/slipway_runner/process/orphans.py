"""What an earlier runner started and nobody looks after any more: found by its tag and its cgroup, and ended."""

from collections.abc import Collection
from pathlib import Path

from slipway_runner.process import cgroup, members, proc, stop
from slipway_runner.process.proc import ProcessId


async def reap(
    instance: str, keep: Collection[str], *, cgroup_root: Path | None = None, seconds: float
) -> tuple[ProcessId, ...]:
    """Kill every process of the runner `instance` whose family is not in `keep`, and remove the cgroups of these.

    Args:
        instance: the runner's tag.
        keep: tags of the families that were adopted.
        cgroup_root: where the runner makes a cgroup for each family; None where it makes none.
        seconds: how long to go on killing.

    Returns:
        Those that could not be ended.
    """
    cgroups = cgroup.others(cgroup_root, keep)

    def orphans() -> list[ProcessId]:
        tagged = [one for tag, found in members.tagged(instance).items() if tag not in keep for one in found]
        living = [one.id for one in proc.processes() if not one.ended] if cgroups else []
        held = {pid for one in cgroups for pid in cgroup.pids(one)}
        return [*tagged, *(one for one in living if one.pid in held)]

    for one in cgroups:
        cgroup.kill(one)
    left = await stop.kill(orphans, seconds)
    for one in cgroups:
        cgroup.remove(one)
    return left
