"""When a load is given up: after a silence, not after a time. Pure.

A load that goes on may take as long as its bytes need; one that shows no sign of life for the stall timeout has
stalled. A ceiling, by the bytes there are to read, ends what keeps talking without getting anywhere.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class StallTimer:
    """Times are of one monotonic clock, in seconds.

    Attributes:
        patience: seconds of silence that are borne.
        ceiling: seconds that the whole may take, suspensions not counted; None is without end.
        began: when the whole began, moved on by suspensions.
        heard: when the last news came.
        suspended: since when silence is excused (a paused download, a queue), None while it is not.
    """

    patience: float
    ceiling: float | None = None
    began: float
    heard: float
    suspended: float | None = None

    @classmethod
    def start(cls, now: float, *, patience: float, ceiling: float | None = None) -> "StallTimer":
        """A timer that begins now."""
        return cls(patience=patience, ceiling=ceiling, began=now, heard=now)

    def news(self, at: float) -> "StallTimer":
        """Something last moved at that time; what was before the latest news changes nothing."""
        return replace(self, heard=max(self.heard, at))

    def suspend(self, now: float) -> "StallTimer":
        """Excuse silence from now on."""
        return self if self.suspended is not None else replace(self, suspended=now)

    def resume(self, now: float) -> "StallTimer":
        """Excuse it no more; what was excused does not count."""
        if self.suspended is None:
            return self
        return replace(self, suspended=None, heard=now, began=self.began + now - self.suspended)

    @property
    def deadline(self) -> float | None:
        """When to give up if nothing is heard until then; None while suspended."""
        if self.suspended is not None:
            return None
        silent = self.heard + self.patience
        return silent if self.ceiling is None else min(silent, self.began + self.ceiling)

    def verdict(self, now: float) -> str | None:
        """Why the load is given up at `now`, None if it is not."""
        if self.deadline is None or now < self.deadline:
            return None
        if self.ceiling is not None and now >= self.began + self.ceiling:
            return f"not ready after {self.ceiling:.0f} s, which is the most that a model of this size is given"
        return f"no progress for {self.patience:.0f} s"
