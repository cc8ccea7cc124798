"""The host's memory, and what a cgroup leaves of it."""

from pathlib import Path

import psutil
import pytest
from slipway_runner.devices.cpu import cpu_device
from slipway_runner.devices.device import DeviceKind

GIB = 1 << 30


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    (folder / "self").mkdir(parents=True)
    (folder / "meminfo").write_text("MemTotal:  67108864 kB\nMemAvailable:   50331648 kB\nHugePages: 0\n")
    (folder / "cpuinfo").write_text("processor\t: 0\nmodel name\t: AMD EPYC\nmodel name\t: AMD EPYC\n")
    (folder / "self" / "cgroup").write_text("0::/\n")
    return folder


@pytest.fixture
def cgroups(tmp_path: Path) -> Path:
    folder = tmp_path / "cgroup"
    folder.mkdir()
    return folder


def limit(folder: Path, most: object, used: int, cache: int, *, version: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current", "inactive_file")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    (folder / names[0]).write_text(f"{most}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cache}\nother 2\n")


def test_the_memory_of_the_host(proc: Path, cgroups: Path) -> None:
    cpu = cpu_device(proc, cgroups)
    assert (cpu.uuid, cpu.kind, cpu.name) == ("cpu", DeviceKind.CPU, "AMD EPYC")
    assert (cpu.memory_total, cpu.memory_free, cpu.memory_used) == (64 * GIB, 48 * GIB, 16 * GIB)


@pytest.mark.parametrize(
    ("membership", "place", "version"),
    [
        ("0::/system.slice/slipway.service", "system.slice/slipway.service", 2),
        ("0::/system.slice/slipway.service", "system.slice", 2),
        ("0::/kubepods/only-the-host-has-it", "", 2),
        ("5:cpu:/\n4:memory:/docker/abc\n0::/", "memory/docker/abc", 1),
        ("4:cpu,memory:/docker/abc", "memory", 1),
    ],
)
def test_a_limit_of_our_cgroup_or_one_above_counts(
    proc: Path, cgroups: Path, membership: str, place: str, version: int
) -> None:
    (proc / "self" / "cgroup").write_text(membership + "\n")
    limit(cgroups / place, 8 * GIB, 5 * GIB, 2 * GIB, version=version)
    cpu = cpu_device(proc, cgroups)
    assert (cpu.memory_total, cpu.memory_free) == (8 * GIB, 5 * GIB)  # what caches files can be had


@pytest.mark.parametrize("most", ["max", 9223372036854771712])
def test_no_limit_is_none(proc: Path, cgroups: Path, most: object) -> None:
    limit(cgroups, most, GIB, 0)
    assert cpu_device(proc, cgroups).memory_total == 64 * GIB


def test_a_host_with_less_free_than_the_limit_leaves(proc: Path, cgroups: Path) -> None:
    limit(cgroups, 60 * GIB, GIB, 0)
    assert cpu_device(proc, cgroups).memory_free == 48 * GIB


def test_what_cannot_be_read_is_zero(tmp_path: Path) -> None:
    cpu = cpu_device(tmp_path, tmp_path)
    assert (cpu.memory_total, cpu.memory_free, cpu.name) == (0, 0, "CPU")


def test_this_host() -> None:
    cpu = cpu_device()
    assert 0 < cpu.memory_free <= cpu.memory_total <= psutil.virtual_memory().total
