"""Memory that loads have claimed and not taken yet, so that two loads do not both count on the same bytes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from slipway_service.fault import Fault, Precondition, Reason

from slipway_runner.devices.device import Device


@dataclass(frozen=True, slots=True)
class _Claim:
    """Bytes by device, and whose memory is counted against them (pids); `waits` as in `Reservations.claim`."""

    bytes: Mapping[str, int]
    pids: frozenset[int] = frozenset()
    waits: bool = False


class Reservations:
    """Claims of the loads under way. To be used from one thread."""

    def __init__(self) -> None:
        self._claims: dict[str, _Claim] = {}

    def reserve(self, owner: str, needed: Mapping[str, int], devices: Iterable[Device]) -> None:
        """Claim bytes on devices, all or nothing; a claim of the same owner is replaced.

        Args:
            owner: whose load it is.
            needed: bytes by the device's uuid; each must be among `devices`.
            devices: as they are now.

        Raises:
            Fault: DEVICE_MEMORY_INSUFFICIENT, with needed and free bytes of each device that has too few.
        """
        known = {device.uuid: device for device in devices}
        others = {uuid: self.available(known[uuid], but=owner) for uuid in needed}
        short = {uuid: size for uuid, size in needed.items() if size > others[uuid]}
        if short:
            raise insufficient([(known[uuid], size, others[uuid]) for uuid, size in short.items()])
        self.claim(owner, needed)

    def claim(self, owner: str, needed: Mapping[str, int], *, waits: bool = False) -> None:
        """Claim bytes, free or not; a claim of the same owner is replaced.

        Args:
            owner: whose load it is.
            needed: bytes by the device's uuid.
            waits: they are still to be given back by models that make room for it. Nobody who comes later can have
                them; those who have claims of their own may find others free before.
        """
        self._claims[owner] = _Claim(dict(needed), waits=waits)

    def started(self, owner: str, pids: Iterable[int]) -> None:
        """Say which processes take the memory that was claimed: what they have is no longer outstanding."""
        claim = self._claims.get(owner)
        if claim:
            self._claims[owner] = replace(claim, pids=frozenset(pids))

    def release(self, owner: str) -> None:
        """Drop a claim: its model is LOADED (and what it takes is seen as used), or its load has ended."""
        self._claims.pop(owner, None)

    def available(self, device: Device, but: str = "") -> int:
        """Return the bytes of a device that nobody uses, or has claimed except the owner `but`."""
        return max(0, device.memory_free - self.claimed(device, but))

    def attainable(self, device: Device) -> int:
        """Return the bytes of a device that nobody has claimed, in use or not."""
        return max(0, device.memory_total - self.claimed(device))

    def claimed(self, device: Device, but: str = "") -> int:
        """Return the bytes of a device that are claimed, except by the owner `but`, and not taken yet."""
        others = [claim for owner, claim in self._claims.items() if owner != but]
        in_its_way = [claim for claim in others if not (claim.waits and but in self._claims)]
        return sum(_outstanding(claim, device) for claim in in_its_way)


def place(needed: int, devices: Sequence[Device], free: Mapping[str, int], *, count: int = 1) -> Mapping[str, int]:
    """Choose devices for a model.

    Args:
        needed: bytes of all of it.
        devices: to choose from; those that are not usable are left out.
        free: bytes by uuid, as `Reservations.available` has them.
        count: devices that it is spread over, in equal parts.

    Returns:
        Bytes by uuid: of the devices that have room, those with the least left over, so that big models find room.

    Raises:
        Fault: DEVICE_MEMORY_INSUFFICIENT, with needed and free bytes of each device.
    """
    part = -(-needed // count)
    usable = [device for device in devices if device.usable]
    roomy = sorted((one for one in usable if free[one.uuid] >= part), key=lambda one: (free[one.uuid], one.index))
    if len(roomy) < count:
        raise insufficient([(device, part, free[device.uuid]) for device in usable])
    return {device.uuid: part for device in roomy[:count]}


def insufficient(short: Sequence[tuple[Device, int, int]]) -> Fault:
    """Return the fault that says how many bytes are needed and free on each device."""
    told = "; ".join(
        f"{device.name} ({device.uuid}) needs {_gib(needed)} and has {_gib(free)} free"
        for device, needed, free in short
    )
    return Fault(
        Reason.DEVICE_MEMORY_INSUFFICIENT,
        f"{told or 'There is no usable device'}. Unload a model, or choose a smaller variant or context.",
        preconditions=tuple(
            Precondition("DEVICE_MEMORY", device.uuid, f"needed_bytes={needed} free_bytes={free}")
            for device, needed, free in short
        ),
    )


def _outstanding(claim: _Claim, device: Device) -> int:
    taken = sum(one.memory_bytes or 0 for one in device.processes if one.pid in claim.pids)
    return max(0, claim.bytes.get(device.uuid, 0) - taken)


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
