"""One file over http: several connections, each fetching part after part until nothing is missing."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

from slipway_registry.transfer.effort import Effort, wanted
from slipway_registry.transfer.errors import Setback
from slipway_registry.transfer.halt import Halt, Halted
from slipway_registry.transfer.links import FileSource
from slipway_registry.transfer.partial import Partial
from slipway_registry.transfer.persist import Patience, persist
from slipway_registry.transfer.ranges import MIN_PART_BYTES, Ranges, Span
from slipway_registry.transfer.response import Response

# Whether more connections would help is looked at after this many seconds, and again after twice as long each time.
FIRST_LOOK = 0.1


@dataclass(slots=True)
class Counters:
    """What a transfer has done so far; written by it, read by anyone."""

    received: int = 0  # bytes that came over the network in this process
    connections: int = 0  # at work now


class _RangeIgnoredError(Exception):
    """The server answers 200 to a request for a part."""


class PartFetch:
    """Fills a partial from a source.

    Args:
        effort: of all connections of the process.
        connections: at most this many at once; one at first, and more as long as all of the process are mostly waiting.
        patience: of each connection.
    """

    def __init__(
        self,
        partial: Partial,
        source: FileSource,
        halt: Halt,
        counters: Counters,
        *,
        effort: Effort,
        connections: int,
        patience: Patience,
    ) -> None:
        self._partial = partial
        self._source = source
        self._halt = halt
        self._counters = counters
        self._effort = effort
        self._patience = patience
        gaps = partial.frontier.gaps()
        missing = sum(end - start for start, end in gaps)
        self._workers = max(1, min(connections, -(-missing // MIN_PART_BYTES)))
        self._ranges = Ranges(gaps, connections=self._workers, block_bytes=partial.frontier.block_bytes)
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._setback: Setback | None = None
        self._streaming = False

    def run(self) -> None:
        """Return when every byte is there.

        Raises:
            Setback, Away: tries ran out, or the server asked for a long wait.
            Fault, DiskFull, Vanished, Halted.
        """
        inner = Halt()  # ends the other connections when one has met something final
        with self._halt.waking(inner.set):
            for thread in self._crew(inner):
                thread.join()
        self._halt.check()
        if self._error:
            raise self._error
        if self._partial.frontier.done < self._partial.size:
            raise self._setback or Setback("the transfer ended with bytes missing")

    def _start(self, halt: Halt) -> threading.Thread:
        with self._lock:
            self._counters.connections += 1
        thread = threading.Thread(target=self._work, args=(halt,), name="part", daemon=True)
        thread.start()
        return thread

    def _crew(self, halt: Halt) -> Sequence[threading.Thread]:
        """Start connections until there are enough of them, or nothing is left to fetch."""
        crew = [self._start(halt)]
        patience = FIRST_LOOK
        while len(crew) < self._workers and (at_work := [thread for thread in crew if thread.is_alive()]):
            effort, begin = self._effort.seconds, time.monotonic()
            at_work[0].join(patience)
            if (elapsed := time.monotonic() - begin) < patience:
                continue
            share = (self._effort.seconds - effort) / elapsed
            crew += [self._start(halt) for _ in range(wanted(len(crew), share, self._workers) - len(crew))]
            self._ranges.share_among(len(crew))
            patience *= 2
        return crew

    def _work(self, halt: Halt) -> None:
        try:
            self._fetch_parts(halt)
        except Halted:
            pass
        except BaseException as error:  # `run` raises it
            with self._lock:
                self._error = self._error or error
            halt.set()
        finally:
            with self._lock:
                self._counters.connections -= 1

    def _fetch_parts(self, halt: Halt) -> None:
        while span := self._ranges.take():
            try:
                persist(partial(self._fetch, span, halt), partial(getattr, span, "position"), self._patience, halt)
            except Setback as setback:
                self._ranges.release(span)
                if self._others_carry_on(setback):
                    return
                raise
            except _RangeIgnoredError:
                self._ranges.collapse()
                if self._begin_streaming():
                    persist(
                        partial(self._fetch_whole, halt),
                        lambda: self._partial.frontier.done,
                        self._patience,
                        halt,
                    )
                return
            self._ranges.release(span)

    def _others_carry_on(self, setback: Setback) -> bool:
        with self._lock:
            self._setback = setback
            return self._counters.connections > 1

    def _begin_streaming(self) -> bool:
        with self._lock:
            first, self._streaming = not self._streaming, True
            return first

    def _fetch(self, span: Span, halt: Halt) -> None:
        self._partial.check_present()
        start, end = span.position, span.end
        if start >= end:
            return
        with self._source.open(start, end, halt) as response:
            if response.status == HTTPStatus.OK and (start, end) != (0, self._partial.size):
                raise _RangeIgnoredError
            _check(response, start, end, self._partial.size)
            self._receive(response, start, lambda count: self._ranges.claim(span, count), halt)
        if self._ranges.left(span):
            raise Setback(f"{response.where} ended {self._ranges.left(span)} bytes early")

    def _fetch_whole(self, halt: Halt) -> None:
        """One connection reads all of it and passes over what is there already."""
        self._partial.check_present()
        with self._source.open(0, self._partial.size, halt) as response:
            _check(response, 0, self._partial.size, self._partial.size)
            self._receive(response, 0, lambda count: count, halt)
        if self._partial.frontier.done < self._partial.size:
            raise Setback(f"{response.where} ended early")

    def _receive(self, response: Response, position: int, claim: Callable[[int], int], halt: Halt) -> None:
        """Write the body from `position` on, until it ends or `claim` grants less than what came."""
        handover = self._partial.handover
        while True:
            begin = time.monotonic()
            buffer = handover.take(position, halt, sharing=max(1, self._counters.connections))
            waited, busy = time.monotonic() - begin, time.thread_time()
            try:
                filled = response.receive_into(buffer)
            except BaseException:
                handover.give_back(buffer)
                raise
            busy, begin = time.thread_time() - busy, time.monotonic()  # while bytes are waited for it does not pass
            granted = claim(filled)
            if not self._partial.write(position, buffer[:granted], lend=True):
                handover.give_back(buffer)
            with self._lock:
                self._counters.received += filled
            self._effort.add(waited + busy + time.monotonic() - begin)
            position += granted
            if granted < filled or filled == 0 or response.length == 0:
                return


def _check(response: Response, start: int, end: int, size: int) -> None:
    """Raises Setback unless the response is that range, as it is."""
    if response.header("Content-Encoding") not in ("", "identity"):
        raise Setback(f"{response.where} encodes the body as {response.header('Content-Encoding')!r}")
    stated = response.header("Content-Range")
    if response.status == HTTPStatus.PARTIAL_CONTENT and stated not in (
        f"bytes {start}-{end - 1}/{size}",
        f"bytes {start}-{end - 1}/*",
    ):
        raise Setback(f"{response.where} answered a request for bytes {start}-{end - 1} with {stated!r}")
    if response.length is not None and response.length > end - start:
        raise Setback(f"{response.where} sends {response.length} bytes where {end - start} were asked for")
