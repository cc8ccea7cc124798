"""One subscriber of an event log: a cursor, and what to send next. Pure; `broadcast` is the loop around it.

A watcher has no queue. It holds its revision and reads the shared log from there, so that a slow subscriber costs
nothing but an old number; when the log has been compacted past it, it starts over with a reset.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slipway_service.eventlog import Cursor, EventLog, Filter, Start


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often and how much is written. A write costs 20-30 µs of CPU whatever it carries, so fewer is better.

    Attributes:
        progress_interval: seconds between two batches with progress, where the subscriber asks for none. 250 ms reads
            as live and lets a core serve a thousand watchers at any event rate.
        shortest_progress_interval: what a shorter one asked for is raised to: 50 ms is quicker than people see.
        bookmark_interval: seconds without a batch after which the cursor alone is sent, so that a client whose filter
            matches nothing still resumes near the head, and dead connections are noticed.
        bookmark_jitter: the share by which each wait for a bookmark differs, so that watchers opened together spread.
        batch_events: events in one batch at most.
        batch_size: bytes of events in one batch at most (one larger event goes alone); far below gRPC's 4 MiB limit.
    """

    progress_interval: float = 0.25
    shortest_progress_interval: float = 0.05
    bookmark_interval: float = 30.0
    bookmark_jitter: float = 0.2
    batch_events: int = 256
    batch_size: int = 512 * 1024


DEFAULT_PACE = Pace()


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What a subscriber asks for.

    Attributes:
        wanted: the resources it sees; `until_done` needs names in it.
        after: where it left off; None begins with the current state.
        min_progress_interval: seconds; None takes the server's.
        until_done: end once every named resource rests or is not there.
    """

    wanted: Filter = Filter()  # noqa: RUF009 - immutable
    after: Cursor | None = None
    min_progress_interval: float | None = None
    until_done: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One write: serialised events, and once the watcher is synced the position they lead to."""

    events: Sequence[bytes] = ()
    cursor: Cursor | None = None
    reset: bool = False
    synced: bool = False


class Watcher:
    """Says what a subscriber gets next. Times are seconds of one monotonic clock, passed in."""

    def __init__(
        self,
        log: EventLog,
        watch: Watch,
        *,
        now: float,
        pace: Pace = DEFAULT_PACE,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._log = log
        self._watch = watch
        self._pace = pace
        self._uniform = uniform
        asked = watch.min_progress_interval
        self._interval = pace.progress_interval if asked is None else max(asked, pace.shortest_progress_interval)
        self._progress_due = now
        self._bookmark_due = self._next_bookmark(now)
        self._tick = 0
        self._revision = 0
        self._backlog: list[bytes] | None = None
        self._reset = False
        self._synced = False
        start = log.start(watch.after)
        if start is Start.REPLAY and watch.after is not None:
            self._revision = watch.after.revision
        else:
            self._begin_state(reset=start is Start.RESET)

    @property
    def lag(self) -> int:
        """How many transitions the subscriber is behind."""
        return self._log.revision - self._revision

    @property
    def lingering(self) -> bool:
        """Progress waits for its interval to pass: only a transition need wake the loop before `due`."""
        return self._tick < self._log.tick

    @property
    def due(self) -> float:
        """When `take` has something even if nothing happens."""
        return min(self._bookmark_due, self._progress_due) if self.lingering else self._bookmark_due

    @property
    def finished(self) -> bool:
        """Whether `until_done` is fulfilled and everything that led to it was taken."""
        if not (self._watch.until_done and self._synced) or self._backlog is not None or self.lag:
            return False
        return self._log.all_done(self._watch.wanted.names)

    def take(self, now: float) -> Batch | None:
        """The next batch, or None if there is nothing to send yet."""
        if self._backlog is None and self._revision < self._log.compacted:
            self._begin_state(reset=True)
        batch = self._take_live(now) if self._backlog is None else self._take_state(self._backlog, now)
        if batch is not None:
            self._bookmark_due = self._next_bookmark(now)
        return batch

    def _begin_state(self, *, reset: bool) -> None:
        log, wanted = self._log, self._watch.wanted
        self._backlog = [entry.event for entry in log.state(wanted)]
        self._backlog += [progress.event for progress in log.progress_after(0, wanted)]
        self._revision, self._tick = log.revision, log.tick
        self._reset, self._synced = reset, False

    def _take_state(self, backlog: list[bytes], now: float) -> Batch:
        events = backlog[: self._fitting(backlog)]
        del backlog[: len(events)]
        reset, self._reset = self._reset, False
        if backlog:
            return Batch(events=events, reset=reset)
        self._backlog = None
        self._synced = True
        self._progress_due = now + self._interval
        return Batch(events=events, reset=reset, cursor=self._cursor(), synced=True)

    def _take_live(self, now: float) -> Batch | None:
        events = self._take_transitions()
        if self.lag:
            return Batch(events=events, cursor=self._cursor() if self._synced else None)
        events += self._take_progress(now, room=self._pace.batch_events - len(events))
        newly_synced, self._synced = not self._synced, True
        if events or newly_synced or now >= self._bookmark_due:
            return Batch(events=events, cursor=self._cursor(), synced=newly_synced)
        return None

    def _take_transitions(self) -> list[bytes]:
        """Scan towards the head until a batch is full; moves the cursor past everything scanned."""
        events: list[bytes] = []
        size = 0
        for entry in self._log.after(self._revision):
            if self._watch.wanted(entry):
                size += len(entry.event)
                if events and (len(events) == self._pace.batch_events or size > self._pace.batch_size):
                    break
                events.append(entry.event)
            self._revision = entry.revision
        return events

    def _take_progress(self, now: float, *, room: int) -> list[bytes]:
        """The newest progress, if its interval has passed; only ever called at the head, so it is never out of date."""
        pending = self._log.progress_after(self._tick, self._watch.wanted)
        if not pending:
            self._tick = self._log.tick
            return []
        if now < self._progress_due:
            return []
        events = [progress.event for progress in pending[:room]]
        taken = self._fitting(events) if events else 0
        if taken == len(pending):
            self._tick = self._log.tick
            self._progress_due = now + self._interval
        elif taken:
            self._tick = pending[taken - 1].tick
        return events[:taken]

    def _fitting(self, events: Sequence[bytes]) -> int:
        """How many of these events go into one batch; at least one."""
        size = 0
        for count, event in enumerate(events[: self._pace.batch_events]):
            size += len(event)
            if count and size > self._pace.batch_size:
                return count
        return min(len(events), self._pace.batch_events)

    def _cursor(self) -> Cursor:
        return Cursor(epoch=self._log.epoch, revision=self._revision)

    def _next_bookmark(self, now: float) -> float:
        jitter = self._pace.bookmark_jitter
        return now + self._pace.bookmark_interval * self._uniform(1 - jitter, 1 + jitter)
