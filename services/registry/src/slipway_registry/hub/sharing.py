"""Answers that are good for a while, and questions that several callers have at the same time."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


@dataclass(slots=True)
class _Flight:
    """A question on its way; neither `value` nor `error` is set where the one who asked it gave up."""

    landed: anyio.Event = field(default_factory=anyio.Event)
    answered: bool = False
    value: Any = None
    error: Exception | None = None


class SharedAnswers:
    """Keeps answers for a time, and asks only once what several want to know now. For use on one event loop.

    When the one who asked first is cancelled, one of the others asks anew. A failure goes to all who wait for it, and
    is not kept.

    Args:
        clock: seconds, monotonic.
        entries: so many answers are kept, those used last.
    """

    def __init__(self, clock: Callable[[], float], entries: int) -> None:
        self._clock = clock
        self._entries = entries
        self._kept: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()
        self._flights: dict[Hashable, _Flight] = {}

    async def get(self, key: Hashable, ttl: float, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer under `key`: a kept one, the one somebody is waiting for already, or that of `ask()`."""
        while True:
            if (kept := self._kept.get(key)) and kept[0] > self._clock():
                self._kept.move_to_end(key)
                return kept[1]  # type: ignore[no-any-return]
            flight = self._flights.get(key)
            if flight is None:
                return await self._ask(key, ttl, ask)
            await flight.landed.wait()
            if flight.error:
                raise flight.error
            if flight.answered:
                return flight.value  # type: ignore[no-any-return]

    async def _ask(self, key: Hashable, ttl: float, ask: Callable[[], Awaitable[T]]) -> T:
        flight = self._flights[key] = _Flight()
        try:
            value = await ask()
            flight.value, flight.answered = value, True
        except Exception as error:
            flight.error = error
            raise
        finally:
            del self._flights[key]
            flight.landed.set()
        self._keep(key, ttl, value)
        return value

    def _keep(self, key: Hashable, ttl: float, value: object) -> None:
        now = self._clock()
        for old in [old for old, (ends, _) in self._kept.items() if ends <= now]:
            del self._kept[old]
        self._kept[key] = (now + ttl, value)
        while len(self._kept) > self._entries:
            self._kept.popitem(last=False)
