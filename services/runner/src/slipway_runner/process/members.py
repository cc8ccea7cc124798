"""Which processes belong to a backend, wherever they have moved.

A backend starts as the leader of a session and process group of its own. Its children normally stay in that group;
those that leave it (`setsid`, double fork) keep the environment they were born with, so a tag in it finds them. Where
a cgroup could be made it holds them all, whatever they do.
"""

from dataclasses import dataclass
from pathlib import Path

from slipway_runner.process import cgroup, proc
from slipway_runner.process.proc import ProcessId, Stat

# Set in the environment of every process a runner starts: which runner, and which start of which model.
RUNNER_TAG = "SLIPWAY_RUNNER_INSTANCE"
FAMILY_TAG = "SLIPWAY_MODEL_UID"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A backend's processes, as a rule to find them by.

    The leader's pid is also the number of its group and of its session (setsid(2)).

    Raises:
        ValueError: the tag is empty, as that of every process that no runner started.
    """

    leader: ProcessId
    tag: str
    cgroup: Path | None = None

    def __post_init__(self) -> None:
        if not self.tag:
            raise ValueError("a family's tag is not empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """Those who live, at one moment."""

    in_group: tuple[ProcessId, ...]
    strays: tuple[ProcessId, ...]

    @property
    def all(self) -> tuple[ProcessId, ...]:
        """The group first, then those who left it."""
        return self.in_group + self.strays

    def __bool__(self) -> bool:
        return bool(self.in_group or self.strays)


class Census:
    """All living processes of the host at one moment. Looking again with the same one reads known tags only once."""

    def __init__(self) -> None:
        self._tags: dict[ProcessId, str] = {}
        self._unreadable: set[ProcessId] = set()
        self.living: tuple[Stat, ...] = ()
        self.look()

    def look(self) -> None:
        """Count again."""
        self.living = tuple(one for one in proc.processes() if not one.ended)
        known = self._tags
        self._tags = {one.id: known[one.id] for one in self.living if one.id in known}
        self._unreadable = set()

    def tag(self, process: ProcessId) -> str:
        """The tag of the family that a process was born in; empty when it has none.

        One without any environment may be in the midst of execve(2), and is asked again at the next look.
        """
        if process in self._unreadable:
            return ""
        if process not in self._tags:
            if not (environment := proc.environ(process.pid)):
                self._unreadable.add(process)
                return ""
            self._tags[process] = environment.get(FAMILY_TAG, "")
        return self._tags[process]


def find(family: Family, census: Census | None = None) -> Members:
    """Every living process of the family, in a census that was just taken or in one taken now."""
    census = census or Census()
    number_reused = _number_reused(family.leader)
    held = cgroup.pids(family.cgroup)
    in_group: list[ProcessId] = []
    strays: list[ProcessId] = []
    for one in census.living:
        if one.id.start < family.leader.start:
            continue  # older than its supposed ancestor
        if one.group == family.leader.pid and not number_reused:
            in_group.append(one.id)
        elif (
            (one.session == family.leader.pid and not number_reused)
            or one.id.pid in held
            or census.tag(one.id) == family.tag
        ):
            strays.append(one.id)
    return Members(in_group=tuple(in_group), strays=tuple(strays))


def descendants(leader: ProcessId) -> tuple[ProcessId, ...]:
    """The leader, its children, theirs and so on: quicker than `find`, and without those whose parent has ended."""
    found = [leader]
    for one in found:  # grows while it is gone through
        found += [child.id for pid in proc.children(one.pid) if (child := proc.stat(pid)) and not child.ended]
    return tuple(found)


def _number_reused(leader: ProcessId) -> bool:
    """Whether the leader's number names another process now.

    The kernel keeps a number back while any process has it as its group or session, so nobody of the old group is left
    then.
    """
    now = proc.stat(leader.pid)
    return now is not None and now.id != leader


def tagged(instance: str) -> dict[str, list[ProcessId]]:
    """Every living process that the runner `instance` has ever started, by the tag of its family.

    Raises:
        ValueError: the instance is empty: processes of several runners may have such a tag.
    """
    if not instance:
        raise ValueError("a runner's tag is not empty")
    found: dict[str, list[ProcessId]] = {}
    for one in proc.processes():
        if one.ended:
            continue
        variables = proc.environ(one.id.pid)
        if variables.get(RUNNER_TAG) == instance and (tag := variables.get(FAMILY_TAG)):
            found.setdefault(tag, []).append(one.id)
    return found
