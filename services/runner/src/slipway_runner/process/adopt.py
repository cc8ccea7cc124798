"""What has become of a process that an earlier runner wrote down."""

import os
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from slipway_runner.process import members, proc
from slipway_runner.process.members import Family


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A process as it was written down: its family, and the boot of the host that its numbers belong to."""

    boot_id: str
    family: Family


class Fate(Enum):
    """What has become of it."""

    ALIVE = auto()
    """The leader runs, and is the one that was started."""
    HEADLESS = auto()
    """The leader is gone and others of the family remain: nobody can serve with them."""
    GONE = auto()
    """None of the family is left."""
    REBOOTED = auto()
    """The host was rebooted: every pid means something else now."""


def fate(trace: Trace) -> Fate:
    """Look in /proc."""
    if trace.boot_id != proc.boot_id():
        return Fate.REBOOTED
    if proc.alive(trace.family.leader):
        return Fate.ALIVE
    return Fate.HEADLESS if members.find(trace.family) else Fate.GONE


# Inode of the host's own PID namespace (PROC_PID_INIT_INO, include/linux/proc_ns.h).
_HOST_PIDS = "pid:[4026531836]"


def why_not() -> str:
    """Why backends would not outlive this runner, in words; empty when they would.

    When the first process of a PID namespace ends, the kernel kills all others in it (pid_namespaces(7)). In a
    container that is the runner itself, or an init that ends with it.
    """
    if os.readlink("/proc/self/ns/pid") == _HOST_PIDS:
        return ""
    if os.getpid() == 1:
        return "the runner is the first process of its container, and all others end with it"
    if os.getppid() == 1 and not _is_system(proc.PROC / "1" / "comm"):
        return "the runner's parent is the init of its container, which ends, with all others, when the runner does"
    return ""


def _is_system(comm: Path) -> bool:
    return comm.read_text().strip() in {"systemd", "init"}
