"""Kills for want of memory, counted where a process is."""

import os
from pathlib import Path

import pytest
from slipway_runner.process import oom
from slipway_runner.process.oom import OomWatch

V1 = "4:memory:/slice/box\n1:cpu:/\n0::/\n"
V2 = "0::/slice/box\n"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc with a process 7, and a /sys/fs/cgroup."""
    monkeypatch.setattr(oom, "PROC", tmp_path / "proc")
    monkeypatch.setattr(oom, "CGROUPS", tmp_path / "cgroup")
    write(tmp_path / "proc/vmstat", 100, "nr_free_pages 5\noom_kill {}\n")
    return tmp_path


def write(path: Path, kills: int, text: str = "low 0\nhigh 0\nmax 3\noom 3\noom_kill {}\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(kills))


def lives_in(host: Path, cgroup: str) -> None:
    (host / "proc/7").mkdir()
    (host / "proc/7/cgroup").write_text(cgroup)


@pytest.mark.parametrize(
    ("cgroup", "file"),
    [
        (V1, "cgroup/memory/slice/box/memory.oom_control"),
        (V2, "cgroup/slice/box/memory.events"),
        (V2, "cgroup/unified/slice/box/memory.events"),
        (V2, "proc/vmstat"),
        ("", "proc/vmstat"),
    ],
)
def test_the_narrowest_count_is_watched(host: Path, cgroup: str, file: str) -> None:
    lives_in(host, cgroup)
    write(host / file, 2)
    watch = OomWatch.begin(7)
    assert watch.file == host / file
    assert not watch.happened()
    if file != "proc/vmstat":
        write(host / "proc/vmstat", 101)
        assert not watch.happened()  # somebody else's
    write(host / file, 3)
    assert watch.happened()


def test_the_cgroup_that_was_made_for_it_comes_first(host: Path) -> None:
    lives_in(host, V2)
    for place in ("cgroup/slice/box", "cgroup/own"):
        write(host / place / "memory.events", 0)
    assert OomWatch.begin(7, host / "cgroup/own").file == host / "cgroup/own/memory.events"
    assert OomWatch.begin(7, host / "cgroup/none").file == host / "cgroup/slice/box/memory.events"


def test_a_cgroup_that_is_gone_tells_nothing(host: Path) -> None:
    lives_in(host, V2)
    file = host / "cgroup/slice/box/memory.events"
    write(file, 1)
    watch = OomWatch.begin(7)
    file.unlink()
    assert not watch.happened()


def test_a_process_that_is_gone_is_watched_all_the_same(host: Path) -> None:
    assert OomWatch.begin(8).file == host / "proc/vmstat"


def test_this_host_counts() -> None:
    assert not OomWatch.begin(os.getpid()).happened()
