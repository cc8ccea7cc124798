"""What the Hub still lets us ask: its quotas, shared by everyone in the process who asks it.

The Hub counts requests in fixed windows, for each account (or address) and kind of route, and says so with every
answer: `RateLimit: "api";r=<requests left>;t=<seconds to the next window>` (draft-ietf-httpapi-ratelimit-headers-09).
"""

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

API = "api"
RESOLVERS = "resolvers"
"""Kinds of routes: the API, and the resolving of files."""

_RATE_LIMIT = re.compile(r'"(?P<bucket>\w+)"\s*;\s*r\s*=\s*(?P<left>\d{1,9})\s*;\s*t\s*=\s*(?P<seconds>\d{1,9})(?!\d)')

MAX_WAIT = 3600.0
"""Longest wait, seconds, that is taken from the Hub's word; its windows are five minutes."""


@dataclass(slots=True)
class _Window:
    left: int
    ends: float


class RateBudget:
    """Requests left, for each caller and bucket. Safe to use from any thread.

    Where the Hub has said nothing yet, or its window is over, everything is allowed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: dict[tuple[str, str], _Window] = {}
        self._lock = threading.Lock()

    def take(self, caller: str, bucket: str) -> float:
        """Count a request about to be made: 0, or the seconds until it may be (it is not counted then)."""
        with self._lock:
            window = self._windows.get((caller, bucket))
            now = self._clock()
            if window is None or window.ends <= now:
                return 0.0
            if window.left <= 0:
                return window.ends - now
            window.left -= 1
            return 0.0

    def learn(self, caller: str, bucket: str, status: int, headers: Mapping[str, str]) -> float | None:
        """Take what an answer says about the quota; seconds to wait, if the answer is a refusal and says so.

        Header names are matched as `headers` matches them: give a mapping that ignores their case.
        """
        left, seconds, bucket = _parsed(headers, bucket)
        if status == 429:
            asked = retry_after(headers)
            seconds = asked if asked is not None else seconds
            left = 0
        if seconds is None:
            return None
        with self._lock:
            self._learn((caller, bucket), left, self._clock() + seconds)
        return seconds if status == 429 else None

    def _learn(self, key: tuple[str, str], left: int, ends: float) -> None:
        window = self._windows.get(key)
        if window and window.ends > self._clock() and abs(window.ends - ends) <= 1:
            # Answers overtake each other: of one window, the lowest count is the newest.
            window.left = min(window.left, left)
        else:
            now = self._clock()
            self._windows = {other: known for other, known in self._windows.items() if known.ends > now}
            self._windows[key] = _Window(left, ends)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header; None where there is none, or it has a date (the Hub sends none)."""
    value = headers.get("retry-after", "").strip()
    return min(float(value), MAX_WAIT) if value.isdecimal() and len(value) < 10 else None


def _parsed(headers: Mapping[str, str], bucket: str) -> tuple[int, float | None, str]:
    match = _RATE_LIMIT.search(headers.get("ratelimit", ""))
    if match is None:
        return 0, None, bucket
    return int(match["left"]), min(float(match["seconds"]), MAX_WAIT), match["bucket"]
