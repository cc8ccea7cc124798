"""A load's place among those that run at once."""

from types import TracebackType
from typing import Self

import anyio


class Slot:
    """Of one load: held while the body of `async with` runs, but for the time in which it was given up."""

    def __init__(self, slots: anyio.CapacityLimiter) -> None:
        self._slots = slots
        self.held = False

    async def take(self) -> None:
        """Wait for it, unless it is held."""
        if not self.held:
            await self._slots.acquire_on_behalf_of(self)
            self.held = True

    def give_up(self) -> None:
        """Let another load have it until `take`."""
        if self.held:
            self._slots.release_on_behalf_of(self)
            self.held = False

    async def __aenter__(self) -> Self:
        await self.take()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_up()
