"""NVIDIA's devices, as NVML (the library below nvidia-smi) sees them.

`nvidia-ml-py` is an extra of this distribution. Without it, or without a driver, there are no such devices, which is
normal. NVML's handles die with the driver or the GPU; nothing here fails because of that.
"""

import importlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from slipway_runner.devices.device import Device, DeviceKind, DeviceProcess

# What NVML says when there is nothing to see, as opposed to something being wrong (nvml.h).
_NO_DRIVER = ("NVMLError_LibraryNotFound", "NVMLError_DriverNotLoaded")


class Nvml:
    """A view of NVIDIA's devices; `devices` may be called as often as wanted (blocking, milliseconds).

    Attributes:
        trouble: why there is nothing to see, "" if that is normal.
    """

    def __init__(self) -> None:
        self.trouble = ""
        self._library: Any = None
        self._seen: dict[str, Device] = {}

    def devices(self) -> tuple[Device, ...]:
        """Return all devices, those that were there before and have vanished as not usable."""
        present = {device.uuid: device for device in self._present()}
        lost = [_lost(device) for uuid, device in self._seen.items() if uuid not in present]
        self._seen |= present
        return (*present.values(), *lost)

    def close(self) -> None:
        """Let go of the driver."""
        library, self._library = self._library, None
        if library is not None:
            try:
                library.nvmlShutdown()
            except library.NVMLError:
                return

    def _present(self) -> Iterator[Device]:
        if not self._open():
            return
        library = self._library
        try:
            driver = library.nvmlSystemGetDriverVersion()
            count = library.nvmlDeviceGetCount()
        except library.NVMLError as error:
            self.trouble = f"NVML: {error}"
            self.close()  # the driver may have been restarted: begin anew the next time
            return
        for index in range(count):
            try:
                yield from _gpu(library, index, driver)
            except library.NVMLError:
                continue  # it fell off the bus while we looked; it is shown as lost if it was ever there

    def _open(self) -> bool:
        if self._library is not None:
            return True
        try:
            library = importlib.import_module("pynvml")
        except ImportError:
            return False
        try:
            library.nvmlInit()
        except library.NVMLError as error:
            self.trouble = "" if type(error).__name__ in _NO_DRIVER else f"NVML: {error}"
            return False
        self.trouble = ""
        self._library = library
        return True


def _gpu(library: Any, index: int, driver: str) -> Iterator[Device]:
    """Yield a GPU, and the slices that it is cut into."""
    handle = library.nvmlDeviceGetHandleByIndex(index)
    whole = _device(library, handle, index, driver)
    slices = list(_slices(library, handle))
    if not slices:
        yield whole
        return
    yield replace(whole, mig=True, usable=False, why_not="it is cut into MIG slices, which are devices of their own")
    for number, part in enumerate(slices):
        yield replace(_device(library, part, number, driver), mig=True, parent=whole.uuid)


def _device(library: Any, handle: Any, index: int, driver: str) -> Device:
    memory = _ask(library, library.nvmlDeviceGetMemoryInfo, handle)
    rates = _ask(library, library.nvmlDeviceGetUtilizationRates, handle)
    return Device(
        uuid=library.nvmlDeviceGetUUID(handle),
        kind=DeviceKind.CUDA,
        index=index,
        name=library.nvmlDeviceGetName(handle),
        # Where GPU and CPU share their memory (Jetson, GB10) the driver does not tell.
        memory_total=memory.total if memory else 0,
        memory_used=memory.used if memory else 0,
        memory_free=memory.free if memory else 0,
        utilization=rates.gpu / 100 if rates else None,
        driver=driver,
        processes=tuple(_processes(library, handle)),
    )


def _processes(library: Any, handle: Any) -> Iterator[DeviceProcess]:
    """Yield those that compute. In a container other PID namespaces' are hidden, or shown with foreign numbers."""
    for process in _ask(library, library.nvmlDeviceGetComputeRunningProcesses, handle) or ():
        yield DeviceProcess(pid=process.pid, memory_bytes=process.usedGpuMemory)


def _slices(library: Any, handle: Any) -> Iterator[Any]:
    mode = _ask(library, library.nvmlDeviceGetMigMode, handle)
    if not mode or mode[0] != library.NVML_DEVICE_MIG_ENABLE:
        return
    for index in range(library.nvmlDeviceGetMaxMigDeviceCount(handle)):
        part = _ask(library, library.nvmlDeviceGetMigDeviceHandleByIndex, handle, index)
        if part is not None:
            yield part


def _ask(library: Any, function: Any, *arguments: Any) -> Any:
    """Return an answer, or None where this GPU or driver has none; a lost GPU is no such case."""
    try:
        return function(*arguments)
    except library.NVMLError as error:
        if type(error).__name__ == "NVMLError_GpuIsLost":
            raise
        return None


def _lost(device: Device) -> Device:
    return replace(
        device,
        usable=False,
        why_not="the driver has lost it",
        memory_used=0,
        memory_free=0,
        utilization=None,
        processes=(),
    )
