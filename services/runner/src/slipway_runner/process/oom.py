"""Whether the kernel has killed processes for want of memory: counted for the narrowest group that a process is in.

It does not say whom it chose. cgroup v2 counts in `memory.events`, v1 in `memory.oom_control`, kills at a limit
and those of a host that has run out (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst); where neither
can be read, /proc/vmstat has the host's count.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from slipway_runner.process.proc import PROC

CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class OomWatch:
    """A file in which kills are counted, and what it said when the process was started or found."""

    file: Path
    before: int

    @classmethod
    def begin(cls, pid: int, cgroup: Path | None = None) -> Self:
        """Watch where `pid` is: the cgroup that was made for it, if one was, else the one it was born in."""
        for file in _counters(pid, cgroup):
            if (count := _count(file)) is not None:
                return cls(file, count)
        return cls(PROC / "vmstat", _count(PROC / "vmstat") or 0)

    def happened(self) -> bool:
        """Whether any process there was killed since."""
        now = _count(self.file)
        return now is not None and now > self.before


def _counters(pid: int, cgroup: Path | None) -> Iterator[Path]:
    if cgroup is not None:
        yield cgroup / "memory.events"
    with suppress(OSError):
        for line in (PROC / str(pid) / "cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            here = path.lstrip("/")
            if "memory" in controllers.split(","):
                yield CGROUPS / "memory" / here / "memory.oom_control"
            elif number == "0":
                yield from (mount / here / "memory.events" for mount in (CGROUPS, CGROUPS / "unified"))


def _count(file: Path) -> int | None:
    with suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return None
