"""Watches of one event log: wakes its watchers, writes what they take, ends them on drain.

There is one `Broadcast` for each log, however many Watch methods read from it. Everything a subscriber owns is its
`Watcher` (a cursor); two events shared by all of them take the place of queues.
"""

import random
from collections.abc import Awaitable, Callable

import anyio

from slipway_service.eventlog import EventLog
from slipway_service.fault import Fault, Reason
from slipway_service.metrics import LogMetrics
from slipway_service.watcher import DEFAULT_PACE, Batch, Pace, Watch, Watcher

RETRY_AFTER_DRAIN = 1.0
"""Seconds after which a client of a draining server tries again: about what a restart takes."""


class Subscription:
    """One watch in progress. `receive` waits for its next batch."""

    def __init__(self, broadcast: "Broadcast", watcher: Watcher) -> None:
        self._broadcast = broadcast
        self._watcher = watcher

    async def receive(self) -> Batch | None:
        """The next batch; None when `until_done` is fulfilled.

        Raises:
            Fault: DRAINING, as soon as the server drains.
        """
        while True:
            self._broadcast.check_draining()
            lag = self._watcher.lag
            if (batch := self._watcher.take(anyio.current_time())) is not None:
                self._broadcast.metrics.wrote(lag=lag, events=len(batch.events), reset=batch.reset)
                return batch
            if self._watcher.finished:
                return None
            await self._broadcast.wait(self._watcher)


class Broadcast:
    """Serves any number of watches of a log.

    Args:
        log: what is watched. Changes to it wake the watchers.
        pace: intervals and batch bounds.
        metrics: where watchers, lag and resets are counted.
        uniform: the source of jitter.
    """

    def __init__(
        self,
        log: EventLog,
        *,
        pace: Pace = DEFAULT_PACE,
        metrics: LogMetrics | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.log = log
        self.metrics = metrics or LogMetrics.unregistered()
        self._pace = pace
        self._uniform = uniform
        self._draining = False
        self._transition = anyio.Event()
        self._change = anyio.Event()
        log.listen(self._wake)

    def subscribe(self, watch: Watch) -> Subscription:
        """Begin a watch inside this process; its batches hold serialised events."""
        watcher = Watcher(self.log, watch, now=anyio.current_time(), pace=self._pace, uniform=self._uniform)
        return Subscription(self, watcher)

    async def serve(self, watch: Watch, write: Callable[[Batch], Awaitable[None]]) -> None:
        """Write batches until the watch is done.

        Raises:
            Fault: DRAINING, as soon as the server drains.
        """
        with self.metrics.watching():
            subscription = self.subscribe(watch)
            while (batch := await subscription.receive()) is not None:
                await write(batch)

    def drain(self) -> None:
        """End every watch, now and from now on, with a fault that tells its client to resume elsewhere."""
        self._draining = True
        self._wake(transition=True)

    def check_draining(self) -> None:
        """Raise DRAINING if the server drains."""
        if self._draining:
            raise Fault(
                Reason.DRAINING,
                "The server is shutting down. Watch again from the last cursor.",
                retry_after=RETRY_AFTER_DRAIN,
            )

    async def wait(self, watcher: Watcher) -> None:
        """Until the watcher may have something to take. Progress does not wake one that lingers over progress."""
        event = self._transition if watcher.lingering else self._change
        with anyio.move_on_after(watcher.due - anyio.current_time()):
            await event.wait()

    def _wake(self, transition: bool) -> None:
        change, self._change = self._change, anyio.Event()
        change.set()
        if transition:
            transitioned, self._transition = self._transition, anyio.Event()
            transitioned.set()
