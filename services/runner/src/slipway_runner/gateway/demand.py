"""Models that requests have named and that are not there: the runner waits for them here, and loads them."""

import anyio


class Demand:
    """Ids, each until it is taken. It holds no more of them than the table has models."""

    def __init__(self) -> None:
        self._wanted: set[str] = set()
        self._news = anyio.Event()

    def add(self, model_id: str) -> None:
        """A request has named this one."""
        self._wanted.add(model_id)
        self._news.set()

    async def take(self, seconds: float) -> list[str]:
        """Wait until there is one, for so long at most, and take them all."""
        with anyio.move_on_after(seconds):
            await self._news.wait()
        self._news = anyio.Event()
        wanted, self._wanted = sorted(self._wanted), set()
        return wanted
