"""cgroups where the host lets us, and everything without them where it does not."""

import sys
from pathlib import Path
from uuid import uuid4

import pytest
from slipway_runner.process import cgroup, members, pidfd
from slipway_runner.process.spawn import Order, spawn
from slipway_runner.process.stop import stop

from tests.unit.runner.process.waiting import written

pytestmark = pytest.mark.anyio

# Moves to another session and drops the tag that it would be found by.
RUNAWAY = """
import os, sys
if os.fork(): os._exit(0)
os.setsid()
os.write(1, b"%d\\n" % os.getpid())
os.execve("/bin/sleep", ["sleep", "60"], {})
"""


async def test_who_drops_group_session_and_tag_is_held_by_the_cgroup(tmp_path: Path) -> None:
    root = cgroup.find_root(f"test-{uuid4()}")
    child = spawn(
        Order(
            argv=(sys.executable, "-S", "-E", "-c", RUNAWAY),
            environment={},
            instance="test-instance",
            tag="runaway",
            directory=tmp_path,
            log=tmp_path / "log",
            cgroup_root=root,
        )
    )
    await pidfd.exited(child.family.leader)
    assert (child.family.cgroup is None) is (root is None)
    if root is None:
        pytest.xfail("this user may not make cgroups: such a process cannot be found on this host")
    await written(tmp_path / "log", 1)
    try:
        (runaway,) = members.find(child.family).strays
        assert await stop(child.family, (), kill_seconds=5) == ()
        await pidfd.exited(runaway)
        assert child.family.cgroup is not None
        assert not child.family.cgroup.exists()
    finally:
        child.reap()
        cgroup.sweep(root, keep=())
        assert list(root.glob("*/")) == []
        cgroup.remove(root)


async def test_nothing_is_made_without_a_root_or_the_right_to(tmp_path: Path) -> None:
    assert cgroup.make(None, "x") is None
    assert cgroup.make(tmp_path / "missing", "x") is None
    assert cgroup.pids(None) == frozenset()
    assert cgroup.pids(tmp_path) == frozenset()
    cgroup.kill(tmp_path)
    cgroup.remove(tmp_path / "missing")
