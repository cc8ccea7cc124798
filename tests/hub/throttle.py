"""Bandwidth limits: of an origin in total, and of each of its connections."""

import threading
from dataclasses import dataclass

from tests.hub.messages import OriginName


class Pace:
    """Spreads bytes evenly over time; what was not used while idle is not saved up."""

    def __init__(self) -> None:
        self._free_at = 0.0
        self._lock = threading.Lock()

    def reserve(self, count: int, rate: float, now: float) -> float:
        """Book ``count`` bytes at ``rate`` bytes a second; seconds to wait before sending them."""
        with self._lock:
            begin = max(now, self._free_at)
            self._free_at = begin + count / rate
            return begin - now


@dataclass(frozen=True, slots=True)
class Limit:
    """Bytes a second, in total and for each connection; None is no limit."""

    total: float | None = None
    per_connection: float | None = None


class Throttle:
    """The limits in force, changeable at any time."""

    def __init__(self) -> None:
        self._limits: dict[OriginName, Limit] = {}
        self._totals: dict[OriginName, Pace] = {"hub": Pace(), "cdn": Pace(), "cas": Pace()}

    def set(self, origin: OriginName, *, total: float | None = None, per_connection: float | None = None) -> None:
        """Limit an origin's bodies; with no figures, lift its limits."""
        self._limits[origin] = Limit(total, per_connection)

    def clear(self) -> None:
        """Lift every limit."""
        self._limits.clear()

    def limit(self, origin: OriginName) -> Limit:
        """What holds for an origin now."""
        return self._limits.get(origin, _NO_LIMIT)

    def total_pace(self, origin: OriginName) -> Pace:
        """The pace that all connections of an origin share."""
        return self._totals[origin]


_NO_LIMIT = Limit()
