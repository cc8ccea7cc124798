"""Whom the cache's books tell what happens to snapshots and pins."""

from collections.abc import Iterable
from typing import Protocol

from slipway_registry.cache.index import Change
from slipway_registry.cache.pin import Pin
from slipway_registry.cache.snapshot import Snapshot


class Listener(Protocol):
    """Told in the event loop, in order."""

    def snapshot(self, change: Change) -> None:
        """A snapshot has appeared, changed or gone. Must not block."""
        ...

    def pin(self, pin: Pin, *, ended: bool = False) -> None:
        """A pin was taken, renewed, asked for, or has ended. Must not block."""
        ...

    def begin(self, snapshots: Iterable[Snapshot], pins: Iterable[Pin]) -> None:
        """The whole cache has been read: these are all that there are. Must not block."""
        ...

    async def settle(self) -> None:
        """Return when what was told is stored and shown, or is known to be stored later; raises nothing."""
        ...
