"""Which devices a model gets. Pure."""

from collections.abc import Iterator, Mapping
from itertools import groupby

from slipway_service.fault import Fault, FieldViolation, Reason

from slipway_runner.backends.base import Found
from slipway_runner.devices.cpu import CPU_UUID
from slipway_runner.devices.device import Device, DeviceKind
from slipway_runner.devices.reserve import insufficient, place
from slipway_runner.models.spec import Spec

# Spreads layers over several devices by itself; the others need to be told (tensor parallel size).
_SPREADS = "llama-server"


def candidates(spec: Spec, devices: tuple[Device, ...]) -> Iterator[tuple[Device, ...]]:
    """The sets of devices to try a model on, best first: those asked for; else the GPUs of one kind, then the CPU.

    The empty set is the CPU.

    Raises:
        Fault: DEVICE_NOT_FOUND; INVALID_FIELDS, devices are asked for that are not of the kind asked for.
    """
    wanted = spec.settings.device
    if spec.devices:
        yield _asked_for(spec.devices, wanted, devices)
        return
    gpus = [one for one in devices if one.usable and one.kind is not DeviceKind.CPU and wanted in {None, one.kind}]
    for _, same in groupby(sorted(gpus, key=_kind), key=_kind):
        yield tuple(same)
    if wanted in {None, DeviceKind.CPU}:
        yield ()
    elif not gpus:
        text = f"this host has no {wanted} device; it has {_told(devices)}"
        raise _wrong("spec.settings.device", text, wanted)


def _asked_for(uuids: tuple[str, ...], wanted: DeviceKind | None, devices: tuple[Device, ...]) -> tuple[Device, ...]:
    known = {device.uuid: device for device in devices}
    for index, uuid in enumerate(uuids):
        if uuid not in known:
            raise _wrong(f"spec.devices[{index}]", f"this host has no device {uuid}; it has {_told(devices)}", uuid)
        if not known[uuid].usable:
            raise _wrong(f"spec.devices[{index}]", f"{uuid} cannot be used: {known[uuid].why_not}", uuid)
        if wanted not in {None, known[uuid].kind}:
            text = f"{uuid} is a {known[uuid].kind} device, and the settings ask for {wanted}: leave one of them out"
            both = (f"spec.devices[{index}]", "spec.settings.device")
            raise Fault(Reason.INVALID_FIELDS, text, fields=tuple(FieldViolation(one, text) for one in both))
    return tuple(known[uuid] for uuid in uuids if uuid != CPU_UUID)


def placed(
    needed: int,
    spec: Spec,
    found: Found,
    devices: tuple[Device, ...],
    everything: tuple[Device, ...],
    free: Mapping[str, int],
) -> Mapping[str, int]:
    """Bytes of memory by device.

    Args:
        needed: bytes of all of it.
        spec: what was asked for; devices that it names are all used.
        found: the backend.
        devices: to choose from; empty is main memory.
        everything: all devices of the host.
        free: bytes by uuid.

    Raises:
        Fault: DEVICE_MEMORY_INSUFFICIENT.
    """
    if not devices:
        memory = [device for device in everything if device.uuid == CPU_UUID]
        return place(needed, memory, free) if memory else {}
    if spec.devices:
        return place(needed, devices, free, count=len(devices))
    counts = [spec.settings.tensor_parallel_size or 1]
    if found.backend == _SPREADS and spec.settings.tensor_parallel_size is None:
        counts = list(range(1, len(devices) + 1))
    for count in counts:
        try:
            return place(needed, devices, free, count=count)
        except Fault as fault:
            refusal = fault
    if len(counts) == 1:
        raise refusal
    raise insufficient([(device, -(-needed // len(devices)), free[device.uuid]) for device in devices])


def _wrong(field: str, text: str, device: str) -> Fault:
    return Fault(Reason.DEVICE_NOT_FOUND, text, fields=(FieldViolation(field, text),), resource=device)


def _kind(device: Device) -> str:
    return device.kind.value


def _told(devices: tuple[Device, ...]) -> str:
    return ", ".join(f"{device.uuid} ({device.name})" for device in devices if device.usable) or "none"
