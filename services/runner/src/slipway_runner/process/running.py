"""A backend that runs: one that this runner started, or one that an earlier runner left behind."""

from dataclasses import dataclass

from slipway_runner.process import pidfd
from slipway_runner.process.members import Family
from slipway_runner.process.oom import OomWatch
from slipway_runner.process.spawn import Child, Exit


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Its family, and the child handle where it is a child of ours.

    `oom` tells, when it was killed, whether the kernel may have done it.
    """

    family: Family
    child: Child | None = None
    oom: OomWatch

    @classmethod
    def started(cls, child: Child) -> "Running":
        """One that was just spawned."""
        return cls(family=child.family, child=child, oom=_watch(child.family))

    @classmethod
    def found(cls, family: Family) -> "Running":
        """One of an earlier runner's."""
        return cls(family=family, oom=_watch(family))

    @property
    def pid(self) -> int:
        """The leader's."""
        return self.family.leader.pid

    async def ended(self) -> Exit:
        """Wait for the leader's end. How it ended is known of children only."""
        await pidfd.exited(self.family.leader)
        return (self.child.exit() if self.child else None) or Exit()

    def reap(self) -> None:
        """Collect the leader after all of the family has gone."""
        if self.child is not None:
            self.child.reap()

    def leave(self) -> None:
        """Let it run on without this runner."""
        if self.child is not None:
            self.child.leave()


def _watch(family: Family) -> OomWatch:
    return OomWatch.begin(family.leader.pid, family.cgroup)
