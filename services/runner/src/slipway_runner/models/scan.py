"""One look at the host's processes for all models together, now and then; looking for each alone would cost twenty
times that.
"""

import anyio

from slipway_runner.process import members
from slipway_runner.process.members import Census, Family
from slipway_runner.process.proc import ProcessId


class MemberScan:
    """Answers all who wait with the same census. Costs nothing while nobody waits.

    Args:
        seconds: between two of them.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._wanted = anyio.Event()
        self._done = anyio.Event()
        self._census: Census | None = None

    async def of(self, family: Family) -> tuple[ProcessId, ...]:
        """Wait for the next census. Returns who of the family is in it."""
        self._wanted.set()
        await self._done.wait()
        return members.find(family, self._census).all

    async def run(self) -> None:
        """Take them, for ever."""
        while True:
            await self._wanted.wait()
            await anyio.sleep(self._seconds)
            self._wanted = anyio.Event()
            if self._census is None:
                self._census = Census()
            else:
                self._census.look()
            self._done.set()
            self._done = anyio.Event()
