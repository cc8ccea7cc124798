"""Who fetches which bytes of a file: the missing ranges, dealt out in order.

Parts are dealt from the front, so that hashing can follow closely, and get smaller towards the end, so that
connections finish together. When nothing is left to deal, an idle connection takes the second half of what the slowest
has before it.
"""

import threading
from dataclasses import dataclass

from slipway_registry.transfer.frontier import BLOCK_BYTES

# A part costs a round trip, and what is ahead of others is read back to be hashed. Eight connections have 64 MiB each:
# 20 ms are under 2 % of that even at 5 Gbit/s. One that fetches all of a large file saves what 30 requests take.
MAX_AT_WORK_BYTES = 512 << 20
# Smaller parts would spend more time on round trips than on bytes.
MIN_PART_BYTES = 4 << 20
# Splitting off less than this costs more (the victim's connection is lost) than it gains.
MIN_STEAL_BYTES = 2 * MIN_PART_BYTES


@dataclass(slots=True, eq=False)
class Span:
    """Bytes [position, end) that one connection is fetching; change only through Ranges."""

    position: int
    end: int


class Ranges:
    """The missing bytes of one file. Safe for many threads.

    Args:
        gaps: what is missing, [start, end) in order; every start that is not a block's is where a block was left.
        connections: how many may come to share them, until `share_among` says how many do.
    """

    def __init__(self, gaps: list[tuple[int, int]], *, connections: int, block_bytes: int = BLOCK_BYTES) -> None:
        self._lock = threading.Lock()
        self._gaps = list(reversed(gaps))  # the next one last
        self._live: list[Span] = []
        self._connections = connections
        self._block_bytes = block_bytes
        self._single = False

    def take(self) -> Span | None:
        """The next part, or half of somebody's; None when there is nothing for another connection to do."""
        with self._lock:
            if self._single:
                return None
            span = self._deal() or self._steal()
            if span:
                self._live.append(span)
            return span

    def share_among(self, connections: int) -> None:
        """So many are at work, and more are not to be expected soon."""
        with self._lock:
            self._connections = connections

    def claim(self, span: Span, count: int) -> int:
        """How many of the `count` bytes that arrived belong to the span still; they count as fetched from now on.

        0: the span is done, or was taken back.
        """
        with self._lock:
            granted = max(0, min(count, span.end - span.position))
            span.position += granted
            return granted

    def left(self, span: Span) -> int:
        """Bytes of the span that are still to come."""
        return max(0, span.end - span.position)

    def release(self, span: Span) -> None:
        """The connection is through with it; what it did not fetch is dealt again, next."""
        with self._lock:
            self._live.remove(span)
            if span.position < span.end:
                self._gaps.append((span.position, span.end))

    def collapse(self) -> None:
        """The server ignores ranges: nothing is dealt any more and every span ends where it is."""
        with self._lock:
            self._single = True
            for span in self._live:
                span.end = span.position

    def _deal(self) -> Span | None:
        if not self._gaps:
            return None
        start, end = self._gaps.pop()
        cut = self._block_end(start + self._part_bytes(end - start))
        if cut < end:
            self._gaps.append((cut, end))
            end = cut
        return Span(start, end)

    def _part_bytes(self, gap: int) -> int:
        left = gap + sum(end - start for start, end in self._gaps)
        return max(MIN_PART_BYTES, min(MAX_AT_WORK_BYTES // self._connections, left // (2 * self._connections)))

    def _steal(self) -> Span | None:
        victim = max(self._live, key=lambda span: span.end - span.position, default=None)
        if victim is None or victim.end - victim.position < MIN_STEAL_BYTES:
            return None
        cut = self._block_end((victim.position + victim.end) // 2)
        stolen = Span(cut, victim.end)
        victim.end = cut
        return stolen

    def _block_end(self, position: int) -> int:
        return -(-position // self._block_bytes) * self._block_bytes
