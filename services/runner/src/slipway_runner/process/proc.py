"""What /proc says about processes: who they are, whose children, in which group, with which tag.

Everything here is read anew at each call; a process may be gone before the next line. proc(5) is the source of the
fields.
"""

import functools
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")

# Of a line of stat: 52 numbers and a name of at most 64 characters.
_STAT_BYTES = 4096

# The first thread is dead: with it the process, unless other threads of it still run, or are still being torn down.
_ENDED_STATES = frozenset("ZXx")


@dataclass(frozen=True, slots=True, order=True)
class ProcessId:
    """One process for as long as the host is up: a pid alone is handed out again, a pid with its start time is not.

    `start` is field 22 of /proc/PID/stat, clock ticks since boot.
    """

    pid: int
    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """The fields of /proc/PID/stat that tell where a process belongs."""

    id: ProcessId
    parent: int
    group: int
    session: int
    state: str
    threads: int

    @property
    def ended(self) -> bool:
        """Whether it is a zombie: exited, holds no memory, port or file, and only its parent's wait is missing.

        A killed process shows the state of a zombie as soon as its first thread has gone. The last one gives the memory
        back, up to half a second later for a GiB (measured), and until then there is nothing to wait for.
        """
        return self.state in _ENDED_STATES and self.threads <= 1


def parse_stat(text: str) -> Stat:
    """Read a line of /proc/PID/stat. The command name may hold blanks and brackets, so fields count from its last
    `)`.
    """
    pid, _, rest = text.partition(" (")
    fields = rest[rest.rindex(")") + 2 :].split()
    return Stat(
        id=ProcessId(int(pid), int(fields[19])),
        state=fields[0],
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        threads=int(fields[17]),
    )


def stat(pid: int) -> Stat | None:
    """The process `pid` now, None when there is none or it is hidden from this user (mount option hidepid)."""
    try:
        # Each process of the host every few seconds: half the time of Path.read_text.
        with open(f"{PROC}/{pid}/stat", "rb", buffering=0) as file:
            return parse_stat(file.read(_STAT_BYTES).decode(errors="replace"))
    except OSError:
        return None


def processes() -> Iterator[Stat]:
    """Every process that this one can see, zombies too."""
    for name in os.listdir(PROC):
        if name.isdigit() and (found := stat(int(name))) is not None:
            yield found


def alive(process: ProcessId) -> bool:
    """Whether exactly this process still runs; a zombie does not."""
    found = stat(process.pid)
    return found is not None and found.id == process and not found.ended


def environ(pid: int) -> Mapping[str, str]:
    """The environment `pid` was started with; empty when it is gone, hidden from this user, or overwritten by the
    program. A process whose first thread has ended has it as long as another one runs.
    """
    raw = _read(PROC / str(pid) / "environ") or _environ_of_threads(PROC / str(pid) / "task")
    pairs = (item.partition(b"=") for item in raw.split(b"\0") if item)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def _environ_of_threads(tasks: Path) -> bytes:
    with suppress(OSError):
        return next(filter(None, (_read(tasks / thread / "environ") for thread in os.listdir(tasks))), b"")
    return b""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def children(pid: int) -> list[int]:
    """Pids of the children of `pid`; empty when it is gone."""
    found: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(PROC / str(pid) / "task"):
            found += map(int, (PROC / str(pid) / "task" / thread / "children").read_text().split())
    return found


@functools.cache
def boot_id() -> str:
    """A UUID that is new with each boot of the host. Pids and start times compare only within one."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()
