"""The CPU and the memory that this process may use: the host's, or what its cgroup leaves of it."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from slipway_runner.devices.device import Device, DeviceKind

CPU_UUID = "cpu"

_UNLIMITED = 1 << 60
"""Version 1 of cgroups writes "no limit" as a number near 2**63."""


def cpu_device(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> Device:
    """Return the CPU with its memory (blocking, below a millisecond).

    Free is what can be had without swapping: `MemAvailable`, or less where a cgroup's limit leaves less. Memory that
    caches files counts as free in both.
    """
    host = _meminfo(proc)
    total, free = host.get("MemTotal", 0), host.get("MemAvailable", 0)
    for limit, used in _limits(proc, cgroups):
        total = min(total, limit)
        free = min(free, max(0, limit - used))
    return Device(
        uuid=CPU_UUID,
        kind=DeviceKind.CPU,
        index=0,
        name=_model_name(proc),
        memory_total=total,
        memory_used=max(0, total - free),
        memory_free=free,
    )


def _meminfo(proc: Path) -> dict[str, int]:
    """Read /proc/meminfo (proc_meminfo(5)), in bytes."""
    values: dict[str, int] = {}
    for line in _read(proc / "meminfo").splitlines():
        name, _, rest = line.partition(":")
        amount = rest.split()
        if amount and amount[0].isdigit():
            values[name] = int(amount[0]) * 1024
    return values


def _limits(proc: Path, cgroups: Path) -> Iterator[tuple[int, int]]:
    """Yield limit and use of each cgroup that we are in and that has a limit; cgroups(7)."""
    for line in _read(proc / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            for folder in _upwards(cgroups, path):
                yield from _limit(folder, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            for folder in _upwards(cgroups / "memory", path):
                yield from _limit(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """Yield the cgroup and those above it. In a container the path may be one that only the host has: then the root."""
    folder = root / path.lstrip("/")
    while folder != root:
        yield folder
        folder = folder.parent
    yield root


def _limit(folder: Path, limit_name: str, used_name: str, cache_name: str) -> Iterator[tuple[int, int]]:
    limit, used = _read(folder / limit_name), _read(folder / used_name)
    if not limit.isdigit() or not used.isdigit() or int(limit) >= _UNLIMITED:
        return
    cache = 0
    for line in _read(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == cache_name and value.isdigit():
            cache = int(value)
    yield int(limit), max(0, int(used) - cache)


def _model_name(proc: Path) -> str:
    for line in _read(proc / "cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "CPU"


def _read(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text().strip()
    return ""
