"""Time as a value that is passed in: tests bring their own."""

import time
from datetime import UTC, datetime
from typing import Protocol

import anyio


class Clock(Protocol):
    """What the scheduler knows of time."""

    def now(self) -> datetime:
        """Wall time, UTC; for people and for what must survive a restart."""
        ...

    def monotonic(self) -> float:
        """Seconds that never jump; for rates and delays."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Wall time, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        await anyio.sleep(seconds)
