"""Rates and remaining times from counters that are read on a timer."""

import math
from dataclasses import dataclass

# Older speed counts half as much after this many seconds: steady to look at, and soon right after a change.
_HALF_LIFE = 3.0
# Before this many seconds of observation a rate says nothing about the end.
_MEANINGFUL_AFTER = 2.0
# Below this (bytes per second) an estimate would jump about by hours.
_MEANINGFUL_RATE = 1024.0


@dataclass(slots=True)
class Rate:
    """An exponentially smoothed rate; times are of a monotonic clock, in seconds."""

    _bytes: int | None = None
    _time: float = 0.0
    _began: float = 0.0
    _value: float = 0.0
    _weight: float = 0.0

    def add(self, total: int, at: float) -> None:
        """`total` bytes so far."""
        if self._bytes is None:
            self._began = at
        elif (elapsed := at - self._time) > 0:
            keep = math.pow(0.5, elapsed / _HALF_LIFE)
            speed = max(0, total - self._bytes) / elapsed
            self._value = self._value * keep + speed * (1 - keep)
            self._weight = self._weight * keep + (1 - keep)
        self._bytes, self._time = total, at

    @property
    def bytes_per_second(self) -> float | None:
        """The rate; None before there are two readings."""
        return self._value / self._weight if self._weight else None

    def eta(self, left: int) -> float | None:
        """Seconds until `left` more bytes are there; None where that cannot be said."""
        rate = self.bytes_per_second
        if rate is None or rate < _MEANINGFUL_RATE or self._time - self._began < _MEANINGFUL_AFTER:
            return None
        return left / rate
