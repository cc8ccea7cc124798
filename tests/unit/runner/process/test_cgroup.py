"""cgroups where the host lets us, and everything without them where it does not."""

import signal
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from slipway_runner.process import cgroup, members, orphans, pidfd, proc
from slipway_runner.process.spawn import Child, Order, spawn
from slipway_runner.process.stop import stop

from tests.unit.runner.process.waiting import written

pytestmark = pytest.mark.anyio

INSTANCE = f"test-{uuid4()}"

# Moves to another session and drops the tag that it would be found by.
RUNAWAY = """
import os, sys
if os.fork(): os._exit(0)
os.setsid()
os.execve("/bin/sh", ["sh", "-c", "echo $$; exec /bin/sleep 60"], {})
"""


def runaway(directory: Path, root: Path | None) -> Child:
    """A backend that has run away from its leader."""
    return spawn(
        Order(
            argv=(sys.executable, "-S", "-E", "-c", RUNAWAY),
            environment={},
            instance=INSTANCE,
            tag=INSTANCE,
            directory=directory,
            log=directory / "log",
            cgroup_root=root,
        )
    )


@pytest.mark.full
async def test_who_drops_group_session_and_tag_is_held_by_the_cgroup(tmp_path: Path) -> None:
    root = cgroup.find_root(f"test-{uuid4()}")
    assert root is not None, "needs a user who may make cgroups (cgroup v2): root, or one with a delegated subtree"
    child = runaway(tmp_path, root)
    await pidfd.exited(child.family.leader)
    await written(tmp_path / "log", 1)
    try:
        (stray,) = members.find(child.family).strays
        assert await stop(child.family, (), kill_seconds=60) == ()
        await pidfd.exited(stray)
        assert child.family.cgroup is not None
        assert not child.family.cgroup.exists()
    finally:
        child.reap()
        assert await orphans.reap(INSTANCE, (), cgroup_root=root, seconds=60) == ()
        assert cgroup.others(root, keep=()) == ()
        cgroup.remove(root)


@pytest.mark.full
async def test_an_orphan_that_only_its_cgroup_holds_is_ended_and_the_cgroup_removed(tmp_path: Path) -> None:
    root = cgroup.find_root(f"test-{uuid4()}")
    assert root is not None, "needs a user who may make cgroups (cgroup v2): root, or one with a delegated subtree"
    child = runaway(tmp_path, root)
    await pidfd.exited(child.family.leader)
    child.reap()
    (line,) = await written(tmp_path / "log", 1)
    assert await orphans.reap(INSTANCE, {INSTANCE}, cgroup_root=root, seconds=60) == ()
    assert proc.stat(int(line)) is not None
    assert await orphans.reap(INSTANCE, (), cgroup_root=root, seconds=60) == ()
    assert cgroup.others(root, keep=()) == ()
    cgroup.remove(root)


async def test_without_a_cgroup_it_is_lost_and_no_other_process_is_taken_for_it(tmp_path: Path) -> None:
    child = runaway(tmp_path, None)
    (line,) = await written(tmp_path / "log", 1)
    lost = proc.stat(int(line))
    assert lost is not None
    try:
        await pidfd.exited(child.family.leader)
        assert child.family.cgroup is None
        assert await stop(child.family, (), kill_seconds=60) == ()
        assert proc.alive(lost.id)
    finally:
        pidfd.send(lost.id, signal.SIGKILL)
        child.reap()


async def test_nothing_is_made_without_a_root_or_the_right_to(tmp_path: Path) -> None:
    assert cgroup.make(None, "x") is None
    assert cgroup.make(tmp_path / "missing", "x") is None
    assert cgroup.pids(None) == frozenset()
    assert cgroup.pids(tmp_path) == frozenset()
    cgroup.kill(tmp_path)
    cgroup.remove(tmp_path / "missing")
