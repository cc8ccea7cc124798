"""What a program costs: wall time, CPU time and memory of all its processes."""

import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
# VmHWM only grows, so that what is missed is what a process takes in its last moments.
SAMPLE_SECONDS = 0.02
# Of what a program that failed has said.
SAID_BYTES = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Seconds, core seconds (user and system), bytes."""

    wall: float
    cpu: float
    memory: int

    @classmethod
    def median(cls, runs: Sequence["Figures"]) -> "Figures":
        """Of each: the least one would be of whoever had the machine's best moment."""
        return cls(
            wall=statistics.median(run.wall for run in runs),
            cpu=statistics.median(run.cpu for run in runs),
            memory=int(statistics.median(run.memory for run in runs)),
        )


class FailedError(Exception):
    """The program failed, or took too long."""


def measure(command: Sequence[str], environment: Mapping[str, str], patience: float) -> Figures:
    """Run a program to its end and count what it and its children took.

    A program whose last line is a JSON object with a Figures' fields has counted by itself.

    Raises:
        FailedError: it ended with an error, or not within `patience` seconds.
    """
    begin = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, cwd=CHECKOUT, env=dict(environment), stdout=output, stderr=output)
        late = threading.Timer(patience, process.kill)
        late.start()
        watch = _Watch(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - begin
        late.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        memory = watch.end()
        output.seek(0)
        text = output.read()
    if process.returncode:
        said = text[-SAID_BYTES:].decode(errors="replace").strip()
        raise FailedError(f"it ended with {process.returncode} after {wall:.0f} s {said}")
    if (lines := text.splitlines()) and lines[-1].startswith(b'{"wall"'):
        return Figures(**json.loads(lines[-1]))
    return Figures(wall=wall, cpu=usage.ru_utime + usage.ru_stime, memory=memory)


class _Watch:
    """The largest peak of any process of a tree. (What wait4 tells begins with the size of this process.)"""

    def __init__(self, root: int) -> None:
        self._root = root
        self._most = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> int:
        """Bytes."""
        self._ended.set()
        self._thread.join()
        return self._most

    def _run(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            for pid in _tree(self._root):
                with contextlib.suppress(OSError):  # it has ended
                    self._most = max(self._most, peak(pid))


def peak(pid: int | str) -> int:
    """The largest resident size of a process so far, bytes."""
    return _status(pid, "VmHWM")


def forget_peak() -> None:
    """This process's largest resident size begins anew (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def resident(pid: int | str) -> int:
    """Its resident size now, bytes."""
    return _status(pid, "VmRSS")


def _status(pid: int | str, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) << 10
    return 0  # a process that has ended and is not waited for yet


def _tree(root: int) -> Iterator[int]:
    yield root
    try:
        children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from _tree(int(child))
