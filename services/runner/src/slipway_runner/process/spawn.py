"""Starting a backend so that it can be found, followed, stopped, and left behind.

It leads a session and a process group of its own, writes to a file rather than to a pipe of ours, and sees an
environment that was built from nothing. So it neither dies nor blocks when the runner does.
"""

import errno
import os
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from signal import Signals

from slipway_runner.process import cgroup, members, proc
from slipway_runner.process.members import Family

# The log may hold prompts; the FIFO commands the backend.
_PRIVATE = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a process ended. Both are None for one that was not our child: the kernel tells only the parent."""

    code: int | None = None
    signal: Signals | None = None

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by {self.signal.name}"
        return "exited" if self.code is None else f"exited with code {self.code}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to start.

    Attributes:
        argv: program and arguments, no shell.
        environment: all of the child's environment but the two tags.
        instance: this runner's tag, the same over its restarts.
        tag: the family's tag, new for every start.
        directory: working directory, there already.
        log: file that standard output and error are appended to; made when missing.
        stdin: path of a FIFO to make and hand over as standard input; None is /dev/null.
        cgroup_root: a cgroup to make the family's own cgroup in, where the host allows it.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    instance: str
    tag: str
    directory: Path
    log: Path
    stdin: Path | None = None
    cgroup_root: Path | None = None


class Child:
    """A backend that this process started.

    Its leader is left unreaped until `reap`, so that its number, and with it the group's, cannot be handed on
    meanwhile.
    """

    def __init__(self, family: Family, process: subprocess.Popen[bytes]) -> None:
        self.family = family
        self._process = process

    def exit(self) -> Exit | None:
        """How the leader ended, None while it runs."""
        if self._process.returncode is not None:
            return _as_exit(self._process.returncode)
        seen = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if seen is None:
            return None
        if seen.si_code == os.CLD_EXITED:
            return Exit(code=seen.si_status)
        return Exit(signal=Signals(seen.si_status))

    def reap(self) -> Exit | None:
        """Collect the leader if it has ended; to be called when the whole family is gone."""
        code = self._process.poll()
        return None if code is None else _as_exit(code)

    def leave(self) -> None:
        """Forget the process without ending it: it is to outlive this runner."""
        if self._process.poll() is None:
            self._process.returncode = 0  # or its finaliser would warn about, and wait for, a process we mean to leave


def _as_exit(code: int) -> Exit:
    return Exit(signal=Signals(-code)) if code < 0 else Exit(code=code)


def spawn(order: Order) -> Child:
    """Start it.

    Blocks until the child has become the program (a few ms). Call it on a thread that lives as long as the runner.

    Raises:
        OSError: the program cannot be run, or log or FIFO cannot be made.
    """
    if shutil.which(order.argv[0], path=order.environment.get("PATH", "")) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), order.argv[0])
    environment = {**order.environment, members.RUNNER_TAG: order.instance, members.FAMILY_TAG: order.tag}
    own_cgroup = cgroup.make(order.cgroup_root, order.tag)
    with ExitStack() as ours:
        log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _PRIVATE)
        ours.callback(os.close, log)
        stdin = _open_stdin(order.stdin)
        ours.callback(os.close, stdin)
        process = subprocess.Popen(
            cgroup.joining(own_cgroup, order.argv),
            stdin=stdin,
            stdout=log,
            stderr=log,
            env=environment,
            cwd=order.directory,
            start_new_session=True,
            close_fds=True,
        )
    leader = proc.stat(process.pid)  # an unreaped child has one even when it has ended already
    if leader is None:
        raise ProcessLookupError(f"/proc has no process {process.pid}; is it mounted with hidepid?")
    return Child(Family(leader=leader.id, tag=order.tag, cgroup=own_cgroup), process)


def _open_stdin(fifo: Path | None) -> int:
    if fifo is None:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    fifo.unlink(missing_ok=True)
    os.mkfifo(fifo, _PRIVATE)
    # Read-write: the child holds a writing end of its own standard input, so that it never reads end-of-file, with us
    # or without.
    return os.open(fifo, os.O_RDWR | os.O_CLOEXEC)
