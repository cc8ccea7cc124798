"""Whether variants fit, in words: on the runner's devices, or in memory that the command line names."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.text import Text
from slipway.common.v1.device_pb2 import DeviceMemory
from slipway.common.v1.variant_pb2 import Variant
from slipway.runner.v1.runner_pb2 import Device

from slipway_client.cli import format as fmt
from slipway_client.cli.quantities import parse_size


@dataclass(frozen=True, slots=True)
class Place:
    """Where a variant may run: devices that are called alike, of which the one with the most room counts."""

    name: str
    devices: tuple[DeviceMemory, ...]

    @property
    def title(self) -> str:
        """Its name, and how many there are."""
        return self.name if len(self.devices) == 1 else f"{len(self.devices)} \N{MULTIPLICATION SIGN} {self.name}"

    def verdict(self, variant: Variant) -> Text:
        """Whether a variant fits on one of them, and by how much."""
        mine = {device.device_id for device in self.devices}
        fits = [fit for fit in variant.fits if fit.device_id in mine]
        if not fits:
            return Text()
        best = max(fits, key=lambda fit: fit.headroom_bytes)
        if best.fits:
            return Text.assemble(("✓ ", "green"), (f"{fmt.size(best.headroom_bytes)} left", "dim"))
        return Text.assemble(("✗ ", "yellow"), (f"{fmt.size(-best.headroom_bytes)} short", "yellow"))


def places_of(devices: Iterable[Device]) -> list[Place]:
    """The devices of a runner that work, those of one make together, in the runner's order."""
    by_name: dict[str, list[DeviceMemory]] = {}
    for device in devices:
        if not device.fault:
            by_name.setdefault(device.display_name or device.memory.device_id, []).append(device.memory)
    return [Place(name, tuple(memories)) for name, memories in by_name.items()]


def places_named(texts: Sequence[str]) -> list[Place]:
    """From `24GB` and `NAME=24GB`: memory that is all free.

    Raises:
        ValueError: one is no such thing, or two have the same name.
    """
    found = {}
    for text in texts:
        name, _, size = text.rpartition("=")
        name = name or size
        if name in found:
            raise ValueError(f"{name!r} is named twice; give each device a name: NAME=SIZE")
        free = parse_size(size)
        found[name] = Place(name, (DeviceMemory(device_id=name, total_bytes=free, free_bytes=free),))
    return list(found.values())
