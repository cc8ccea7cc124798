"""All that models can run on: this host's CPU and GPUs."""

from dataclasses import dataclass
from pathlib import Path

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
