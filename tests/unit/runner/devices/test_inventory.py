"""All devices of a host, and choosing among them."""

from pathlib import Path

from slipway_runner.devices.device import Device, DeviceKind
from slipway_runner.devices.inventory import Devices, Inventory

from tests.unit.runner.devices.test_sysfs import card, compute_node


def device(
    uuid: str, kind: DeviceKind = DeviceKind.CUDA, *, why_not: str = "", free: int = 10, index: int = 0
) -> Device:
    return Device(
        uuid=uuid,
        kind=kind,
        index=index,
        name=f"the {uuid}",
        memory_total=100,
        memory_used=100 - free,
        memory_free=free,
        usable=not why_not,
        why_not=why_not,
    )


INVENTORY = Inventory(
    cpu=device("cpu", DeviceKind.CPU),
    gpus=(device("GPU-a"), device("GPU-b", why_not="the driver has lost it")),
)


def test_gpus_come_before_the_cpu() -> None:
    assert [one.uuid for one in INVENTORY.all] == ["GPU-a", "GPU-b", "cpu"]


def test_this_host_is_looked_at_without_trouble() -> None:
    devices = Devices()
    inventory = devices.look()
    devices.close()
    assert inventory.trouble == ""
    assert inventory.cpu.memory_total > 0


def test_gpus_of_amd_are_among_them(tmp_path: Path) -> None:
    card(tmp_path, 0)
    compute_node(tmp_path, 1, 51234, 128)
    gpus = Devices(sysfs=tmp_path).look().gpus
    assert [one.kind for one in gpus if one.kind is DeviceKind.ROCM] == [DeviceKind.ROCM]
