"""A bound on how many do something at once, for threads that must not wait past a halt."""

import threading
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from slipway_registry.transfer.halt import Halt


class Slots:
    """At most `limit` holders for each key."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: Counter[Hashable] = Counter()
        self._change = threading.Condition()

    @contextmanager
    def holding(self, key: Hashable, halt: Halt) -> Iterator[None]:
        """Wait for a slot and hold it.

        Raises:
            Halted: while waiting.
        """
        with halt.waking(self._wake), self._change:
            while self._held[key] >= self._limit:
                halt.check()
                self._change.wait()
            self._held[key] += 1
        try:
            yield
        finally:
            with self._change:
                self._held[key] -= 1
                self._change.notify_all()

    def _wake(self) -> None:
        with self._change:
            self._change.notify_all()
