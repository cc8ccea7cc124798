"""All that models can run on: this host's CPU and GPUs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway_service.fault import Fault, Reason

from slipway_runner.devices.cpu import cpu_device
from slipway_runner.devices.device import Device
from slipway_runner.devices.nvml import Nvml
from slipway_runner.devices.sysfs import amd_devices


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What there is at one moment. `trouble` says what hides GPUs that may be there, "" if nothing does."""

    cpu: Device
    gpus: tuple[Device, ...] = ()
    trouble: str = ""

    @property
    def all(self) -> tuple[Device, ...]:
        """GPUs first, then the CPU."""
        return (*self.gpus, self.cpu)


class Devices:
    """Looks at the devices. No GPU is a normal host.

    Args:
        proc, sysfs: where procfs and sysfs are mounted.
    """

    def __init__(self, proc: Path = Path("/proc"), sysfs: Path = Path("/sys")) -> None:
        self._proc = proc
        self._sysfs = sysfs
        self._nvml = Nvml()

    def look(self) -> Inventory:
        """Return what there is now (blocking, milliseconds; the first time a driver may take seconds to answer)."""
        nvidia = self._nvml.devices()
        return Inventory(
            cpu=cpu_device(self._proc, self._sysfs / "fs/cgroup"),
            gpus=(*nvidia, *amd_devices(self._sysfs)),
            trouble=self._nvml.trouble,
        )

    def close(self) -> None:
        """Let go of drivers."""
        self._nvml.close()


def pick(inventory: Inventory, uuids: Sequence[str]) -> tuple[Device, ...]:
    """Return the devices that a caller names, in his order; "cpu" is the CPU.

    Raises Fault: DEVICE_NOT_FOUND, with the devices there are, if one is not there or not usable.
    """
    known = {device.uuid: device for device in inventory.all}
    wrong = [_why_not(known.get(uuid), uuid) for uuid in uuids if uuid not in known or not known[uuid].usable]
    if wrong:
        usable = ", ".join(f"{device.uuid} ({device.name})" for device in inventory.all if device.usable)
        raise Fault(Reason.DEVICE_NOT_FOUND, f"{'; '.join(wrong)}. There are {usable}.")
    return tuple(known[uuid] for uuid in uuids)


def _why_not(device: Device | None, uuid: str) -> str:
    return f"{uuid} cannot be used: {device.why_not}" if device else f"There is no device {uuid}"
