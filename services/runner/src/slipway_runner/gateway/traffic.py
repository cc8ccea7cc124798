"""Requests in flight and the last use of each model: what drains and idle times are told from."""

import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import anyio


class Traffic:
    """By the model's uid. Times are Unix seconds."""

    def __init__(self) -> None:
        self._in_flight: Counter[str] = Counter()
        self._last_use: dict[str, float] = {}
        self._quiet = anyio.Event()

    @contextmanager
    def counted(self, uid: str) -> Iterator[None]:
        """One request, from the choice of its model to the end of its answer."""
        self._in_flight[uid] += 1
        self._last_use[uid] = time.time()
        try:
            yield
        finally:
            self._in_flight[uid] -= 1
            self._last_use[uid] = time.time()
            if not self._in_flight[uid]:
                del self._in_flight[uid]
                quiet, self._quiet = self._quiet, anyio.Event()
                quiet.set()

    async def idle(self, uid: str, seconds: float) -> bool:
        """Wait until a model answers no request, for so long at most; whether that came true."""
        with anyio.move_on_after(seconds):
            while self._in_flight[uid]:
                await self._quiet.wait()
        return not self._in_flight[uid]

    async def all_idle(self, seconds: float) -> bool:
        """The same of all models."""
        with anyio.move_on_after(seconds):
            while self._in_flight:
                await self._quiet.wait()
        return not self._in_flight

    def use(self) -> dict[str, dict[str, float]]:
        """For each model that was ever used: requests in flight, and when one last began or ended."""
        return {uid: {"in_flight": self._in_flight[uid], "last_use": last} for uid, last in self._last_use.items()}

    def forget_all_but(self, uids: Collection[str]) -> None:
        """Drop what is known of models that are gone and answer nothing any more."""
        self._last_use = {uid: last for uid, last in self._last_use.items() if uid in uids or uid in self._in_flight}
