"""One loop for every Watch method: it follows the cursor and resumes by itself.

A watch may lose its stream at any moment: a service drains, restarts, or the core refuses one of a thousand streams
that are opened at once (as CANCELLED). None of that reaches the caller. What a broken stream had sent of a state or a
replay is dropped and asked for again, so the caller sees either all of it or nothing, and no transition twice.
"""

from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Generic, Protocol, Self

import anyio
import grpc
from slipway.common.v1.watch_pb2 import Cursor

from slipway_client.backoff import Backoff
from slipway_client.errors import SlipwayError, Unavailable
from slipway_client.events import Event, Kind, Mirror, Reset, Resource, Synced, Update

SILENCE = 120.0
"""Seconds without a batch after which a stream counts as dead: four of the bookmarks that servers send every 30 s."""


class Batch(Protocol):
    """A `Watch…Response`."""

    @property
    def events(self) -> Iterable[Any]:
        """The events, oldest first."""
        ...

    @property
    def cursor(self) -> Cursor:
        """Everything up to here has been sent."""
        ...

    @property
    def reset(self) -> bool:
        """Whether the state follows anew."""
        ...

    @property
    def synced(self) -> bool:
        """Whether state or replay are complete with this batch."""
        ...

    def HasField(self, field_name: Any) -> bool:  # noqa: N802  (protobuf's name)
        """Whether a message field is set."""
        ...


class Batches(Protocol):
    """An open stream of batches; a `Stream` is one."""

    async def read(self) -> Batch | None:
        """The next batch; None when the server has ended the stream with OK."""
        ...

    def close(self) -> None:
        """Ends the stream."""
        ...


OnDisconnect = Callable[[SlipwayError, float], None]
"""Told of each lost stream and of the seconds until the next attempt; raising ends the watch."""


def ignore_disconnect(error: SlipwayError, delay: float) -> None:
    """Says nothing: the watch resumes."""


class Watch(Generic[Resource, Update]):
    """The events of a watch, by `async for`. Close it, or use it as an async context manager, when you leave it early.

    Args:
        open_stream: opens the watch behind a cursor, or with the state when there is none.
        kind: what is watched.
        after: where to begin; None begins with the state.
        known: resources as they were at `after`, for the mirror.
        until_done: the server ends the stream when everything selected is done, and that ends the watch.
        backoff: waits between attempts.
        on_disconnect: told of each lost stream.
        silence: seconds without a batch after which a stream counts as dead.
    """

    def __init__(
        self,
        open_stream: Callable[[Cursor | None], Batches],
        kind: Kind[Resource, Update],
        *,
        after: Cursor | None = None,
        known: Iterable[Resource] = (),
        until_done: bool = False,
        backoff: Backoff | None = None,
        on_disconnect: OnDisconnect = ignore_disconnect,
        silence: float = SILENCE,
    ) -> None:
        self._open = open_stream
        self._kind = kind
        self._cursor = after
        self._until_done = until_done
        self._backoff = backoff or Backoff()
        self._on_disconnect = on_disconnect
        self._silence = silence
        self._stream: Batches | None = None
        self._ready: deque[Event[Resource, Update]] = deque()
        self._unsynced: list[Event[Resource, Update]] | None = []
        self._failures = 0
        self._ended = False
        self.mirror: Mirror[Resource, Update] = Mirror(kind, known)
        """The state as of the last event that was handed out."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event[Resource, Update]:
        """The next event.

        Raises:
            SlipwayError: the server refused the watch for a reason that trying again does not mend.
        """
        while not self._ready:
            if self._ended:
                raise StopAsyncIteration
            await self._advance()
        event = self._ready.popleft()
        self.mirror.apply(event)
        return event

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the watch: nothing comes after what is ready."""
        self._ended = True
        self._drop_stream()

    async def _advance(self) -> None:
        """Takes one batch, or waits for the next attempt after a failure."""
        try:
            batch = await self._read()
        except SlipwayError as error:
            self._drop_stream()
            if not is_resumable(error):
                self._ended = True
                raise
            await self._back_off(error)
            return
        if batch is None:
            self._ready.extend(self._unsynced or ())
            self.close()
        else:
            self._take(batch)

    async def _read(self) -> Batch | None:
        """The next batch; None when the watch is over."""
        if self._stream is None:
            self._unsynced = []
            self._stream = self._open(self._cursor)
        try:
            with anyio.fail_after(self._silence):
                batch = await self._stream.read()
        except TimeoutError:
            raise _lost(f"nothing came for {self._silence:.0f} s") from None
        if batch is None and not self._until_done:
            raise _lost("the server ended the watch")
        return batch

    def _take(self, batch: Batch) -> None:
        if batch.reset:
            self._unsynced = [Reset()]
        events = [event for message in batch.events if (event := self._kind.event(message)) is not None]
        if batch.synced:
            events = [*(self._unsynced or ()), *events, Synced(batch.cursor)]
            self._unsynced = None
            self._failures = 0
        if self._unsynced is not None:
            self._unsynced += events
            return
        if batch.HasField("cursor"):
            self._cursor = batch.cursor
        self._ready.extend(events)

    async def _back_off(self, error: SlipwayError) -> None:
        self._failures += 1
        delay = self._backoff.delay(self._failures, at_least=error.retry_after or 0.0)
        self._on_disconnect(error, delay)
        await self._backoff.sleep(delay)

    def _drop_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def is_resumable(error: SlipwayError) -> bool:
    """Whether a watch that ended so is taken up again.

    CANCELLED is never our own doing here (that would be a cancelled task); INTERNAL and UNKNOWN without a reason are
    what the core and proxies make of a connection that broke off.
    """
    if error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return True
    return not error.from_service and error.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


def _lost(text: str) -> Unavailable:
    return Unavailable(grpc.StatusCode.UNAVAILABLE.name, text, code=grpc.StatusCode.UNAVAILABLE)
