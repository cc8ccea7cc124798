"""What tells a slow link from a busy machine: how much of a core the connections of the process take."""

import threading


class Effort:
    """Seconds that went into receiving, writing and waiting for the hash, over all connections; for many threads."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """So far."""
        return self._seconds

    def add(self, seconds: float) -> None:
        """A connection has worked that long."""
        with self._lock:
            self._seconds += seconds


def wanted(connections: int, share: float, most: int) -> int:
    """How many connections a file should have that has `connections` now.

    Args:
        share: of one core, what all connections of the process take. Hashing what they bring takes another core, so
            that with one they have all they can use: more of them would take turns, and not be faster.
        most: the cap, which is wanted where connections do nothing but wait.
    """
    if share * most <= connections:
        return most
    return max(connections, min(most, int(connections / share)))
