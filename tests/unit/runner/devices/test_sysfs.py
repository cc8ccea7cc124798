"""AMD's GPUs from a sysfs of ours."""

from pathlib import Path

import pytest
from slipway_runner.devices.device import Device, DeviceKind, DeviceProcess
from slipway_runner.devices.sysfs import amd_devices

GIB = 1 << 30


def write(root: Path, **files: object) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def card(sysfs: Path, number: int, **changes: object) -> Path:
    """A card as amdgpu shows it: a directory below class/drm, and its connectors beside it."""
    folder = sysfs / "class" / "drm" / f"card{number}"
    (folder / "device" / "drm" / f"renderD{128 + number}").mkdir(parents=True)
    (sysfs / "class" / "drm" / f"card{number}-DP-1" / "device").mkdir(parents=True)
    files: dict[str, object] = {
        "vendor": "0x1002",
        "device": "0x74a1",
        "product_name": "AMD Instinct MI300X",
        "unique_id": f"0123456789abcde{number}",
        "mem_info_vram_total": 192 * GIB,
        "mem_info_vram_used": 2 * GIB,
        "gpu_busy_percent": 12,
    }
    write(folder / "device", **files | changes)
    return folder / "device"


def compute_node(sysfs: Path, number: int, gpu_id: int, render_minor: int) -> None:
    node = sysfs / "class" / "kfd" / "kfd" / "topology" / "nodes" / str(number)
    write(
        node,
        gpu_id=gpu_id,
        properties=f"cpu_cores_count 0\ndrm_render_minor {render_minor}\nunique_id 81985529216486895",
    )


def holds(sysfs: Path, pid: int, gpu_id: int, size: int) -> None:
    write(sysfs / "class" / "kfd" / "kfd" / "proc" / str(pid), **{f"vram_{gpu_id}": size})


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    write(tmp_path / "module" / "amdgpu", version="6.12.12")
    compute_node(tmp_path, 0, 0, 0)  # the CPU is a node, too
    return tmp_path


def test_a_gpu_is_seen_with_all_that_is_known_of_it(sysfs: Path) -> None:
    card(sysfs, 0)
    compute_node(sysfs, 1, 51234, 128)
    holds(sysfs, 4321, 51234, GIB)
    holds(sysfs, 4322, 51234, 0)
    holds(sysfs, 4323, 99999, GIB)
    assert amd_devices(sysfs) == (
        Device(
            uuid="GPU-0123456789abcde0",
            kind=DeviceKind.ROCM,
            index=0,
            name="AMD Instinct MI300X",
            memory_total=192 * GIB,
            memory_used=2 * GIB,
            memory_free=190 * GIB,
            utilization=0.12,
            driver="6.12.12",
            processes=(DeviceProcess(pid=4321, memory_bytes=GIB),),
        ),
    )


def test_cards_are_counted_in_their_order_and_others_are_left_out(sysfs: Path) -> None:
    card(sysfs, 10)
    card(sysfs, 2)
    card(sysfs, 1, vendor="0x8086")
    assert [(one.index, one.uuid[-1]) for one in amd_devices(sysfs)] == [(0, "2"), (1, "0")]


def test_a_card_without_compute_is_shown_and_cannot_be_used(sysfs: Path) -> None:
    card(sysfs, 0)
    (gpu,) = amd_devices(sysfs)
    assert not gpu.usable
    assert "no KFD node" in gpu.why_not


def test_what_a_driver_does_not_tell_is_left_open(sysfs: Path) -> None:
    device = card(sysfs, 0)
    for name in ("product_name", "unique_id", "gpu_busy_percent", "mem_info_vram_used"):
        (device / name).unlink()
    compute_node(sysfs, 1, 51234, 128)
    (gpu,) = amd_devices(sysfs)
    assert (gpu.uuid, gpu.name, gpu.utilization) == ("0", "AMD GPU 0x74a1", None)
    assert gpu.memory_free == 192 * GIB


def test_without_any_there_are_none(tmp_path: Path) -> None:
    assert amd_devices(tmp_path) == ()
