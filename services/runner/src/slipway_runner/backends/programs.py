"""Where a backend's program is, and what is installed beside it."""

import re
from collections.abc import Iterator
from pathlib import Path

from slipway_runner.backends.base import Found, Host
from slipway_runner.devices.device import Device, DeviceKind


def candidates(host: Host, backend: str, program: str) -> Iterator[Path]:
    """Yield where to look for a program: as configured (then nowhere else), on the search path, as installed by us."""
    configured = host.programs.get(backend)
    if configured is not None:
        yield configured
        return
    places = [directory / program for directory in host.search_path]
    if host.installed is not None:
        places.append(host.installed / backend / "bin" / program)
    yield from (place for place in places if place.is_file())


def distributions(program: Path) -> dict[str, str]:
    """Return the Python distributions installed beside a program, name to version, without running it.

    Importing torch to ask takes seconds; the directories `NAME-VERSION.dist-info` say the same (PyPA: recording
    installed projects). Names are in lower case with `-` for `_` and `.`.
    """
    found: dict[str, str] = {}
    prefix = program.resolve().parent.parent if program.is_symlink() else program.parent.parent
    for packages in ("site-packages", "dist-packages"):
        for info in prefix.glob(f"lib/python3*/{packages}/*.dist-info"):
            name, _, version = info.name.removesuffix(".dist-info").partition("-")
            found[re.sub(r"[-_.]+", "-", name).lower()] = version
    return found


def torch_kinds(version: str) -> frozenset[DeviceKind]:
    """Return what a build of torch runs on, by the local part of its version; the plain one of PyPI is for CUDA."""
    _, _, local = version.partition("+")
    if local.startswith("cpu"):
        return frozenset({DeviceKind.CPU})
    gpu = DeviceKind.ROCM if local.startswith("rocm") else DeviceKind.CUDA
    return frozenset({DeviceKind.CPU, gpu})


def missing_kinds(found: Found, devices: tuple[Device, ...]) -> frozenset[DeviceKind]:
    """Return the kinds among `devices` (none: the CPU) that a backend's build cannot use."""
    return frozenset({device.kind for device in devices} or {DeviceKind.CPU}) - found.kinds
