"""Request quotas in fixed windows, with the headers of draft-ietf-httpapi-ratelimit-headers as the Hub sends them."""

import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tests.hub.messages import Reply, Request, json_reply

Bucket = Literal["api", "resolvers", "pages"]


@dataclass(slots=True)
class _Window:
    quota: int
    seconds: float
    opened: float
    used: dict[str, int]


class RateLimits:
    """Quotas per bucket and caller; none is in force until a test sets one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: dict[Bucket, _Window] = {}
        self._lock = threading.Lock()

    def set(self, bucket: Bucket, *, quota: int, window: float = 300.0) -> None:
        """Allow each caller ``quota`` requests in every ``window`` seconds (the real Hub's are five minutes)."""
        with self._lock:
            self._windows[bucket] = _Window(quota, window, self._clock(), {})

    def clear(self) -> None:
        """Lift every quota."""
        with self._lock:
            self._windows.clear()

    def count(self, request: Request) -> tuple[dict[str, str], Reply | None]:
        """Count a request: the headers for its answer, and the refusal if its quota is used up."""
        bucket = bucket_of(request.path)
        caller = request.bearer or "anonymous"
        with self._lock:
            window = self._windows.get(bucket)
            if window is None:
                return {}, None
            now = self._clock()
            if now - window.opened >= window.seconds:
                window.opened, window.used = now, {}
            used = window.used.get(caller, 0)
            refused = used >= window.quota
            if not refused:
                window.used[caller] = used = used + 1
            reset = math.ceil(window.opened + window.seconds - now)
            headers = {
                "RateLimit": f'"{bucket}";r={window.quota - used};t={reset}',
                "RateLimit-Policy": f'"fixed window";"{bucket}";q={window.quota};w={math.ceil(window.seconds)}',
            }
        if not refused:
            return headers, None
        message = "We had to rate limit you. Please authenticate or retry later."
        return headers, json_reply({"error": message}, status=429, headers={"X-Error-Message": message})


def bucket_of(path: str) -> Bucket:
    """Which quota a path counts against."""
    if path.startswith("/api/resolve-cache/") or re.match(r"/[^/]+(/[^/]+)?/resolve/", path):
        return "resolvers"
    return "api" if path.startswith("/api/") else "pages"
