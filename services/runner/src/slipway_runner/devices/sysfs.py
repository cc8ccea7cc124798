"""AMD's GPUs, as the kernel shows them in sysfs; no library and no tool of AMD's is needed.

Sources: the kernel's documentation of amdgpu (mem_info_vram_*, gpu_busy_percent, unique_id, product_name) and of its
compute interface KFD (topology/nodes, proc/PID/vram_GPUID).
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from slipway_runner.devices.device import Device, DeviceKind, DeviceProcess

_AMD = "0x1002"  # PCI vendor


def amd_devices(sysfs: Path = Path("/sys")) -> tuple[Device, ...]:
    """Return AMD's GPUs in the order of their cards (blocking, below a millisecond each)."""
    cards = sorted((sysfs / "class/drm").glob("card[0-9]*"), key=lambda card: _number(card.name))
    found = [card / "device" for card in cards if "-" not in card.name and _read(card / "device/vendor") == _AMD]
    nodes = {minor: node for node in _nodes(sysfs) if (minor := _property(node, "drm_render_minor"))}
    driver = _read(sysfs / "module/amdgpu/version")
    return tuple(_device(device, index, nodes, driver, sysfs) for index, device in enumerate(found))


def _device(device: Path, index: int, nodes: dict[int, Path], driver: str, sysfs: Path) -> Device:
    node = next((nodes[minor] for minor in _render_minors(device) if minor in nodes), None)
    total = _integer(device / "mem_info_vram_total")
    used = _integer(device / "mem_info_vram_used")
    unique = _read(device / "unique_id")
    busy = _read(device / "gpu_busy_percent")
    return Device(
        # As ROCR_VISIBLE_DEVICES takes it; cards without a number of their own are known by their index.
        uuid=f"GPU-{unique}" if unique else str(index),
        kind=DeviceKind.ROCM,
        index=index,
        name=_read(device / "product_name") or f"AMD GPU {_read(device / 'device')}",
        memory_total=total,
        memory_used=used,
        memory_free=max(0, total - used),
        utilization=int(busy) / 100 if busy.isdigit() else None,
        driver=driver,
        processes=tuple(_processes(node, sysfs)) if node else (),
        usable=node is not None,
        why_not="" if node else "its driver offers no compute (no KFD node)",
    )


def _processes(node: Path, sysfs: Path) -> Iterator[DeviceProcess]:
    gpu = _read(node / "gpu_id")
    for entry in sorted((sysfs / "class/kfd/kfd/proc").glob(f"[0-9]*/vram_{gpu}")):
        if held := _integer(entry):
            yield DeviceProcess(pid=int(entry.parent.name), memory_bytes=held)


def _nodes(sysfs: Path) -> Iterator[Path]:
    """Yield KFD's nodes that are GPUs; CPUs are nodes with gpu_id 0."""
    for node in (sysfs / "class/kfd/kfd/topology/nodes").glob("*"):
        if _integer(node / "gpu_id"):
            yield node


def _property(node: Path, name: str) -> int:
    for line in _read(node / "properties").splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdigit():
            return int(value)
    return 0


def _render_minors(device: Path) -> list[int]:
    return [_number(entry.name) for entry in (device / "drm").glob("renderD*")]


def _number(name: str) -> int:
    digits = name.lstrip("abcdefghijklmnopqrstuvwxyzD")
    return int(digits) if digits.isdigit() else -1


def _integer(path: Path) -> int:
    text = _read(path)
    return int(text) if text.isdigit() else 0


def _read(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text().strip()
    return ""
