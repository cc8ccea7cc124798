import os
import platform
import subprocess
import sys

import pytest
from slipway_runner.process import adopt, proc
from slipway_runner.process.adopt import Fate, Trace
from slipway_runner.process.members import Family
from slipway_runner.process.proc import ProcessId


def test_the_name_of_a_program_may_hold_anything() -> None:
    stat = proc.parse_stat("12 (a) b (c) S 1 2 3 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 1 0 4711 100 200\n")
    assert stat.id == ProcessId(12, 4711)
    assert (stat.state, stat.parent, stat.group, stat.session, stat.threads) == ("S", 1, 2, 3, 1)
    assert not stat.ended


def test_oneself() -> None:
    mine = proc.stat(os.getpid())
    assert mine is not None
    assert mine.parent == os.getppid()
    assert proc.alive(mine.id)
    assert not proc.alive(ProcessId(mine.id.pid, mine.id.start - 1))
    assert os.getpid() in {one.id.pid for one in proc.processes()}


def test_a_zombie_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    zombie = proc.stat(child.pid)
    assert zombie is not None
    assert zombie.ended
    assert not proc.alive(zombie.id)
    child.wait()
    assert proc.stat(child.pid) is None


ONE_THREAD_LEFT = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
ctypes.CDLL(None).syscall(60 if sys.argv[1] == "x86_64" else 93, 0)  # exit(2): of this thread alone
"""


def test_a_process_has_not_ended_while_a_thread_of_it_is_left() -> None:
    command = [sys.executable, "-c", ONE_THREAD_LEFT, platform.machine()]
    with subprocess.Popen(command, env={"A": "1"}, stdin=subprocess.PIPE) as child:
        while (seen := proc.stat(child.pid)) is None or seen.state != "Z":
            os.sched_yield()
        assert os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        assert not seen.ended
        assert proc.alive(seen.id)
        assert proc.environ(child.pid) == {"A": "1"}
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not proc.alive(seen.id)


def test_an_environment_is_what_a_program_was_started_with() -> None:
    command = ["/bin/sh", "-c", "echo; read line"]
    child = subprocess.Popen(
        command, env={"A": "1", "B": "two=2"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdout.read(1)  # in the midst of execve(2) a process has no environment at all
        assert proc.environ(child.pid) == {"A": "1", "B": "two=2"}
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
    assert proc.environ(child.pid) == {}


def test_the_boot_id_can_be_read() -> None:
    assert len(proc.boot_id()) == 36


def test_another_boot_is_recognised() -> None:
    mine = proc.stat(os.getpid())
    assert mine is not None
    family = Family(leader=mine.id, tag="x")
    assert adopt.fate(Trace(boot_id=proc.boot_id(), family=family)) is Fate.ALIVE
    assert adopt.fate(Trace(boot_id="another", family=family)) is Fate.REBOOTED
    gone = Family(leader=ProcessId(mine.id.pid, mine.id.start - 1), tag="x")
    assert adopt.fate(Trace(boot_id=proc.boot_id(), family=gone)) is Fate.GONE


@pytest.mark.parametrize(
    ("namespace", "pid", "parent", "comm", "outlives"),
    [
        ("pid:[4026531836]", 500, 1, "systemd", True),
        ("pid:[4026531836]", 1, 0, "slipway-runner", True),
        ("pid:[4026532999]", 1, 0, "slipway-runner", False),
        ("pid:[4026532999]", 7, 1, "tini", False),
        ("pid:[4026532999]", 7, 1, "systemd", True),
        ("pid:[4026532999]", 70, 20, "tini", True),
    ],
)
def test_whether_backends_outlive_the_runner(
    monkeypatch: pytest.MonkeyPatch, namespace: str, pid: int, parent: int, comm: str, outlives: bool
) -> None:
    monkeypatch.setattr(os, "readlink", lambda _: namespace)
    monkeypatch.setattr(os, "getpid", lambda: pid)
    monkeypatch.setattr(os, "getppid", lambda: parent)
    monkeypatch.setattr(adopt, "_is_system", lambda _: comm == "systemd")
    assert (adopt.why_not() == "") is outlives
