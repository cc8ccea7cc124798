"""The log behind every Watch: transitions with revisions, the newest progress beside them, and the current state.

Pure: no clock, no I/O, no gRPC. An entry's `event` is the already serialised `events` field of a batch (see
`wire.event_field`), so that a batch is a concatenation of entries and nothing is serialised once per subscriber.
All methods belong to one thread, the event loop's.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """A position in a log: how many transitions of `epoch` had happened, 0 for none."""

    epoch: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A transition.

    Attributes:
        revision: its place in the log, from 1.
        key: the resource's name, for example `models/qwen`.
        event: the serialised `events` field that carries the whole resource, or its deletion.
        done: what `until_done` waits for: the resource rests in this state. A deletion is always done.
        deleted: the resource is gone.
        label: a second thing that a filter may ask for (the holder of a pin). It never changes while the resource
            lives, or a filter would hide the transition that moved the resource out of it.
    """

    revision: int
    key: str
    event: bytes
    done: bool = False
    deleted: bool = False
    label: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """The newest progress of a resource since its last transition. `tick` orders progress within one process."""

    tick: int
    key: str
    event: bytes
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which resources a watcher sees: of a collection (`models/`; empty: all), of these names, with this label."""

    collection: str = ""
    names: frozenset[str] = frozenset()
    label: str | None = None

    def __call__(self, item: Entry | Progress) -> bool:
        """Whether the watcher sees this one."""
        if self.names and item.key not in self.names:
            return False
        return item.key.startswith(self.collection) and self.label in (None, item.label)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much history is kept for watchers that come back; older entries are compacted away.

    10,000 transitions are hours of a busy host, and a watcher that was away for longer reads the state anew, which is
    then the smaller answer. 32 MiB holds that many entries of 3 KiB.
    """

    entries: int = 10_000
    size: int = 32 * 1024 * 1024


_BOUNDS = Bounds()


class Start(Enum):
    """How a watch begins at a cursor."""

    STATE = auto()  # no cursor: the state, then live
    REPLAY = auto()  # the log still has everything after the cursor
    RESET = auto()  # compacted, another epoch, or from the future: the state again


class EventLog:
    """Transitions in order, bounded; the current state; the newest progress of each resource.

    Args:
        epoch: a UUID, new whenever revisions start over.
        bounds: how much history is kept.
        revision: the head of a durable log that is loaded again; 0 for a new one.
        state: the last transition of every living resource, when loaded again.
        entries: the newest history, oldest first, ending at `revision`, when loaded again; what exceeds the bounds is
            dropped.

    Raises:
        ValueError: `entries` has gaps or does not end at `revision`.
    """

    def __init__(
        self,
        epoch: str,
        *,
        bounds: Bounds = _BOUNDS,
        revision: int = 0,
        state: Iterable[Entry] = (),
        entries: Sequence[Entry] = (),
    ) -> None:
        first = revision - len(entries) + 1
        if any(entry.revision != first + place for place, entry in enumerate(entries)):
            raise ValueError(f"a log's history must run up to its revision {revision} without gaps")
        self.epoch = epoch
        self.revision = revision
        self.tick = 0
        self._bounds = bounds
        self._entries = list(entries)
        self._size = sum(len(entry.event) for entry in entries)
        self._state = {entry.key: entry for entry in state}
        self._progress: dict[str, Progress] = {}
        self._listeners: list[Callable[[bool], None]] = []
        self._compact()

    @property
    def cursor(self) -> Cursor:
        """The head: what Get, List and mutations answer with."""
        return Cursor(epoch=self.epoch, revision=self.revision)

    @property
    def compacted(self) -> int:
        """The oldest revision that a cursor may have and still be replayed; entries up to it are gone."""
        return self.revision - len(self._entries)

    def append(self, key: str, event: bytes, *, done: bool = False, label: str = "") -> Entry:
        """Record that a resource came to be or changed; wakes the watchers."""
        return self.apply(Entry(revision=self.revision + 1, key=key, event=event, done=done, label=label))

    def delete(self, key: str, event: bytes) -> Entry:
        """Record that a resource is gone; `event` is the batch field with its `deleted`.

        Raises:
            KeyError: there is no such resource.
        """
        label = self._state[key].label
        return self.apply(Entry(revision=self.revision + 1, key=key, event=event, done=True, deleted=True, label=label))

    def apply(self, entry: Entry) -> Entry:
        """Record a transition that a durable store has already given its revision.

        Raises:
            ValueError: the revision is not the one after the head.
        """
        if entry.revision != self.revision + 1:
            raise ValueError(f"revision {entry.revision} cannot follow {self.revision}")
        self.revision = entry.revision
        self._entries.append(entry)
        self._size += len(entry.event)
        self._progress.pop(entry.key, None)
        if entry.deleted:
            self._state.pop(entry.key, None)
        else:
            self._state[entry.key] = entry
        self._compact()
        self._tell(transition=True)
        return entry

    def progress(self, key: str, event: bytes) -> None:
        """Replace a resource's progress. Of a resource that is not there it is dropped: it came after the deletion."""
        if (entry := self._state.get(key)) is None:
            return
        self.tick += 1
        self._progress.pop(key, None)  # so that the dict stays in the order of ticks
        self._progress[key] = Progress(self.tick, key, event, entry.label)
        self._tell(transition=False)

    def start(self, after: Cursor | None) -> Start:
        """How a watch begins that has seen everything up to `after`."""
        if after is None:
            return Start.STATE
        known = after.epoch == self.epoch and self.compacted <= after.revision <= self.revision
        return Start.REPLAY if known else Start.RESET

    def after(self, revision: int) -> Sequence[Entry]:
        """Everything after a revision that is not compacted, oldest first."""
        return self._entries[revision - self.compacted :]

    def state(self, wanted: Filter) -> list[Entry]:
        """The last transition of every living resource that the filter selects."""
        return [entry for entry in self._state.values() if wanted(entry)]

    def progress_after(self, tick: int, wanted: Filter) -> list[Progress]:
        """The progress that is newer than `tick`, oldest first."""
        newer: list[Progress] = []
        for progress in reversed(self._progress.values()):
            if progress.tick <= tick:
                break
            if wanted(progress):
                newer.append(progress)
        return newer[::-1]

    def all_done(self, names: Iterable[str]) -> bool:
        """Whether every one of these resources rests or is not there."""
        return all((entry := self._state.get(name)) is None or entry.done for name in names)

    def listen(self, listener: Callable[[bool], None]) -> None:
        """Call back after each change: with True for a transition, False for progress. It must not block or raise."""
        self._listeners.append(listener)

    def _tell(self, *, transition: bool) -> None:
        for listener in self._listeners:
            listener(transition)

    def _compact(self) -> None:
        drop = max(0, len(self._entries) - self._bounds.entries)
        self._size -= sum(len(entry.event) for entry in self._entries[:drop])
        while self._size > self._bounds.size:
            self._size -= len(self._entries[drop].event)
            drop += 1
        del self._entries[:drop]
