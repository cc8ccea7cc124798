"""Ending trees of real processes that do not want to end."""

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM
from uuid import uuid4

import anyio
import pytest
from slipway_runner.process import members, orphans, pidfd, proc
from slipway_runner.process.members import Family
from slipway_runner.process.proc import ProcessId
from slipway_runner.process.spawn import Child, Exit, Order, spawn
from slipway_runner.process.stop import Rung, stop

from tests.unit.runner.process.waiting import written

pytestmark = pytest.mark.anyio

INSTANCE = f"test-{uuid4()}"
"""Another for each process that runs these tests: each ends its own only. Tags have it in them for the same reason."""
POLITE = (Rung(SIGTERM, 0.3),)

# Each prints its pid; `deaf` ignores SIGTERM, `moved` leaves session and group, `heavy` has memory whose return takes a
# while, and threads of which the last returns it.
TREE = """
import os, signal, sys, threading, time
def grow():
    global memory
    memory = b"x" * (400 << 20)
    for _ in range(8): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
def child(*habits):
    pid = os.fork()
    if pid: return pid
    if "heavy" in habits: grow()
    if "moved" in habits: os.setsid()
    if "deaf" in habits: signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(1, b"%d\\n" % os.getpid())
    while True: time.sleep(60)
for habits in sys.argv[1:]:
    if habits.startswith("leader:"):
        if "deaf" in habits: signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if "leaves" in habits: child(*habits.split(",")); os.write(1, b"0\\n"); sys.exit(0)
    else:
        child(*habits.split(","))
os.write(1, b"%d\\n" % os.getpid())
while True: time.sleep(60)
"""


class Trees:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.children: list[Child] = []

    async def plant(self, *habits: str, expect: int | None = None, tag: str = "tree") -> tuple[Family, list[ProcessId]]:
        """A family whose members all run by now."""
        log = self._folder / f"log{len(self.children)}"
        child = spawn(
            Order(
                argv=(sys.executable, "-S", "-E", "-c", TREE, *habits),
                environment={},
                instance=INSTANCE,
                tag=f"{INSTANCE}-{tag}",
                directory=self._folder,
                log=log,
            )
        )
        self.children.append(child)
        expected = expect or 1 + len([habit for habit in habits if not habit.startswith("leader:")])
        lines = await written(log, expected)
        found = [proc.stat(int(line)) for line in lines if line != "0"]
        return child.family, [one.id for one in found if one is not None]


@pytest.fixture
async def trees(tmp_path: Path) -> AsyncIterator[Trees]:
    planted = Trees(tmp_path)
    yield planted
    await orphans.reap(INSTANCE, (), seconds=5)
    for child in planted.children:
        child.reap()


async def test_a_polite_tree_ends_at_the_first_rung(trees: Trees) -> None:
    family, everybody = await trees.plant("polite", "polite")
    assert set(members.find(family).in_group) == set(everybody)
    assert await stop(family, (Rung(SIGTERM, 60.0),), kill_seconds=60) == ()
    assert not [one for one in everybody if proc.alive(one)]
    assert trees.children[0].exit() == Exit(signal=SIGTERM)
    assert trees.children[0].reap() == Exit(signal=SIGTERM)
    assert proc.stat(family.leader.pid) is None


async def test_the_deaf_are_killed(trees: Trees) -> None:
    family, everybody = await trees.plant("deaf", "leader:deaf")
    assert await stop(family, POLITE, kill_seconds=60) == ()
    assert not [one for one in everybody if proc.alive(one)]


async def test_rungs_are_climbed_in_order(trees: Trees) -> None:
    family, everybody = await trees.plant("leader:deaf")
    assert await stop(family, (Rung(SIGTERM, 0.2), Rung(SIGINT, 60.0)), kill_seconds=0.0) == ()
    assert not proc.alive(everybody[0])


async def test_those_who_moved_are_found_by_their_tag_and_killed(trees: Trees) -> None:
    family, everybody = await trees.plant("moved", "moved,deaf", "polite")
    found = members.find(family)
    assert len(found.strays) == 2
    assert set(found.all) == set(everybody)
    assert await stop(family, POLITE, kill_seconds=60) == ()
    assert not [one for one in everybody if proc.alive(one)]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members are looked up again long before a heavy one is gone."""
    monkeypatch.setattr("slipway_runner.process.stop._RESCAN_SECONDS", 0.001)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("habits", ["heavy", "moved,heavy"])
async def test_who_is_killed_is_waited_for_until_the_memory_is_back(trees: Trees, habits: str) -> None:
    family, everybody = await trees.plant(habits)
    assert await stop(family, (), kill_seconds=60) == ()
    assert not [one for one in everybody if proc.alive(one)]
    assert trees.children[0].reap() == Exit(signal=SIGKILL)


@pytest.mark.usefixtures("impatient")
async def test_orphans_are_waited_for_until_their_memory_is_back(trees: Trees) -> None:
    _, everybody = await trees.plant("moved,heavy")
    assert await orphans.reap(INSTANCE, (), seconds=60) == ()
    assert not [one for one in everybody if proc.alive(one)]


async def test_the_rest_of_a_family_without_its_leader_is_found(trees: Trees) -> None:
    family, (rest,) = await trees.plant("leader:leaves,deaf", expect=2)
    await pidfd.exited(family.leader)
    assert trees.children[0].exit() == Exit(code=0)
    assert members.find(family).in_group == (rest,)
    assert await stop(family, (), kill_seconds=60) == ()
    assert not proc.alive(rest)


async def test_a_family_that_is_gone_is_stopped_at_once(trees: Trees) -> None:
    family, everybody = await trees.plant()
    os.kill(family.leader.pid, SIGKILL)
    await pidfd.exited(everybody[0])
    with anyio.fail_after(20):
        assert await stop(family, (Rung(SIGTERM, 30.0),), kill_seconds=60) == ()
    assert trees.children[0].exit() == Exit(signal=SIGKILL)


async def test_what_cannot_be_killed_is_returned(trees: Trees, monkeypatch: pytest.MonkeyPatch) -> None:
    family, everybody = await trees.plant("deaf", "leader:deaf")
    with monkeypatch.context() as patched:
        patched.setattr(pidfd, "send", lambda *_: None)  # as a process in an uninterruptible wait takes no signal
        assert set(await stop(family, (), kill_seconds=0.3)) == set(everybody)


async def test_a_reused_number_is_nobody_of_ours(trees: Trees) -> None:
    family, _ = await trees.plant("polite")
    older = Family(leader=ProcessId(family.leader.pid, family.leader.start - 1), tag="another")
    assert not members.find(older)


async def test_orphans_are_those_of_no_family_that_is_kept(trees: Trees) -> None:
    kept, _ = await trees.plant("moved", tag="kept")
    _, lost = await trees.plant("moved,deaf", tag="lost")
    assert await orphans.reap(INSTANCE, {kept.tag}, seconds=60) == ()
    assert not [one for one in lost if proc.alive(one)]
    assert len(members.find(kept).all) == 2
    assert members.tagged("another-instance") == {}


async def test_a_pidfd_on_what_is_gone_or_another_is_harmless(trees: Trees) -> None:
    family, _ = await trees.plant()
    wrong = ProcessId(family.leader.pid, family.leader.start - 1)
    pidfd.send(wrong, SIGKILL)
    with anyio.fail_after(20):
        await pidfd.exited(wrong)
    assert proc.alive(family.leader)


async def test_a_fifo_never_ends_and_the_environment_is_as_ordered(tmp_path: Path) -> None:
    code = "import os, sys; print(sorted(os.environ)); sys.stdout.flush(); print(sys.stdin.readline())"
    child = spawn(
        Order(
            argv=(sys.executable, "-S", "-E", "-c", code),
            environment={"ONLY": "this"},
            instance=INSTANCE,
            tag="fifo",
            directory=tmp_path,
            log=tmp_path / "log",
            stdin=tmp_path / "stdin",
        )
    )
    log = tmp_path / "log"
    await written(log, 1)
    assert log.read_text() in {
        "['LC_CTYPE', 'ONLY', 'SLIPWAY_MODEL_UID', 'SLIPWAY_RUNNER_INSTANCE']\n",
        "['ONLY', 'SLIPWAY_MODEL_UID', 'SLIPWAY_RUNNER_INSTANCE']\n",
    }
    assert child.exit() is None
    (tmp_path / "stdin").write_text("a command\n")
    await pidfd.exited(child.family.leader)
    assert "a command" in log.read_text()
    assert child.reap() == Exit(code=0)


async def test_the_log_is_appended_to(tmp_path: Path) -> None:
    for word in ("one", "two"):
        order = Order(
            argv=("/bin/echo", word),
            environment={},
            instance=INSTANCE,
            tag=word,
            directory=tmp_path,
            log=tmp_path / "log",
        )
        child = spawn(order)
        await pidfd.exited(child.family.leader)
        child.reap()
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    order = Order(
        argv=("/nonexistent/program",),
        environment={},
        instance=INSTANCE,
        tag="none",
        directory=tmp_path,
        log=tmp_path / "log",
    )
    with pytest.raises(FileNotFoundError):
        spawn(order)
