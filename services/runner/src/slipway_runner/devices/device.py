"""What a model can run on."""

from dataclasses import dataclass
from enum import StrEnum


class DeviceKind(StrEnum):
    """The kinds of devices a backend can be built for."""

    CPU = "cpu"
    CUDA = "cuda"
    ROCM = "rocm"
    VULKAN = "vulkan"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProcess:
    """A process that holds memory of a device. `memory_bytes` is None where the driver does not tell."""

    pid: int
    memory_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device as it is now. Bytes and shares are None where the driver does not tell.

    `uuid` is what `CUDA_VISIBLE_DEVICES` or `ROCR_VISIBLE_DEVICES` take, and stays the same over reboots; the CPU's
    is "cpu". `utilization` is 0..1. `mig` is true for a slice of a GPU (its `parent` is the GPU's uuid) and for
    a GPU that is cut into slices, which runs nothing itself (`usable` is false then).
    """

    uuid: str
    kind: DeviceKind
    index: int
    name: str
    memory_total: int
    memory_used: int
    memory_free: int
    utilization: float | None = None
    driver: str = ""
    processes: tuple[DeviceProcess, ...] = ()
    mig: bool = False
    parent: str = ""
    usable: bool = True
    why_not: str = ""
