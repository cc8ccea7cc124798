"""How long to wait before trying again: exponential with full jitter, as a value that is passed in."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Waits drawn evenly between nothing and a bound that doubles with each failure in a row.

    Full jitter spreads a thousand clients that lost the same server at the same moment; a test passes its own
    `draw` and `sleep` and waits for nothing.
    """

    first: float = 0.25
    """Bound of the first wait, seconds: a replica that takes over answers within it."""
    longest: float = 10.0
    """Bound of every later wait, seconds: how long a client may be the last to notice that a server is back."""
    draw: Callable[[], float] = random.random
    """Draws from [0, 1)."""
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep

    def delay(self, failures: int, *, at_least: float = 0.0) -> float:
        """Seconds to wait after `failures` failures in a row (1 or more), not before what the server asked for."""
        bound = min(self.longest, self.first * 2.0 ** min(failures - 1, 32))
        return at_least + self.draw() * bound
