"""One file over http: several connections, each fetching part after part until nothing is missing."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

from slipway_registry.transfer.errors import Setback
from slipway_registry.transfer.halt import Halt, Halted
from slipway_registry.transfer.links import FileSource
from slipway_registry.transfer.partial import Partial
from slipway_registry.transfer.persist import Patience, persist
from slipway_registry.transfer.ranges import MIN_PART_BYTES, Ranges, Span
from slipway_registry.transfer.wire import Response

# Large enough that system calls and thread switches cost little; what a kill loses is what is in these buffers.
BUFFER_BYTES = 1 << 20
# Bytes are written at least this often (seconds), so that on a slow link progress is seen and little is lost.
FLUSH_INTERVAL = 0.05
# A transfer begins with so many connections, and takes the others after this many seconds unless each of these brings
# that many bytes a second: then the disk or the CPU is the limit, and more threads would only take turns.
FIRST_CONNECTIONS = 2
LOOK_AFTER = 0.1
FAST = 150e6


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
        connections: at most this many at once.
        patience: of each connection.
    """

    def __init__(
        self,
        partial: Partial,
        source: FileSource,
        halt: Halt,
        counters: Counters,
        *,
        connections: int,
        patience: Patience,
    ) -> None:
        self._partial = partial
        self._source = source
        self._halt = halt
        self._counters = counters
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
            crew = [self._start(inner) for _ in range(min(FIRST_CONNECTIONS, self._workers))]
            if self._are_slow(crew):
                crew += [self._start(inner) for _ in range(self._workers - len(crew))]
            for thread in crew:
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

    def _are_slow(self, crew: Sequence[threading.Thread]) -> bool:
        """Look once, after a moment: more connections help a slow link, and only cost CPU where these keep up."""
        if len(crew) == self._workers:
            return False
        crew[0].join(LOOK_AFTER)
        return self._counters.received < FAST * LOOK_AFTER * len(crew)

    def _work(self, halt: Halt) -> None:
        buffer = memoryview(bytearray(BUFFER_BYTES))
        try:
            self._fetch_parts(buffer, halt)
        except Halted:
            pass
        except BaseException as error:  # `run` raises it
            with self._lock:
                self._error = self._error or error
            halt.set()
        finally:
            with self._lock:
                self._counters.connections -= 1

    def _fetch_parts(self, buffer: memoryview, halt: Halt) -> None:
        while span := self._ranges.take():
            try:
                persist(
                    partial(self._fetch, span, buffer, halt), partial(getattr, span, "position"), self._patience, halt
                )
            except Setback as setback:
                self._ranges.release(span)
                if self._others_carry_on(setback):
                    return
                raise
            except _RangeIgnoredError:
                self._ranges.collapse()
                if self._begin_streaming():
                    persist(
                        partial(self._fetch_whole, buffer, halt),
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

    def _fetch(self, span: Span, buffer: memoryview, halt: Halt) -> None:
        self._partial.check_present()
        start, end = span.position, span.end
        if start >= end:
            return
        with self._source.open(start, end, halt) as response:
            if response.status == HTTPStatus.OK and (start, end) != (0, self._partial.size):
                raise _RangeIgnoredError
            _check(response, start, end, self._partial.size)
            self._receive(response, buffer, start, lambda count: self._ranges.claim(span, count))
        if self._ranges.left(span):
            raise Setback(f"{response.where} ended {self._ranges.left(span)} bytes early")

    def _fetch_whole(self, buffer: memoryview, halt: Halt) -> None:
        """One connection reads all of it and passes over what is there already."""
        self._partial.check_present()
        with self._source.open(0, self._partial.size, halt) as response:
            _check(response, 0, self._partial.size, self._partial.size)
            self._receive(response, buffer, 0, lambda count: count)
        if self._partial.frontier.done < self._partial.size:
            raise Setback(f"{response.where} ended early")

    def _receive(self, response: Response, buffer: memoryview, position: int, claim: Callable[[int], int]) -> None:
        """Write the body from `position` on, until it ends or `claim` grants less than what came."""
        while True:
            filled = 0
            flush_at = time.monotonic() + FLUSH_INTERVAL
            try:
                while filled < len(buffer) and time.monotonic() < flush_at:
                    if not (count := response.receive_into(buffer[filled:])):
                        break
                    filled += count
            finally:  # what came before a connection broke counts
                granted = claim(filled)
                self._partial.write(position, buffer[:granted])
                with self._lock:
                    self._counters.received += filled
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
