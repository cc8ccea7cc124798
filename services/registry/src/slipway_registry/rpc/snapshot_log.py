"""What happens to snapshots and pins, as entries of the event logs that WatchSnapshots and WatchPins serve.

The logs outlive the process. What other programs did to the cache while the registry was away is told when it has been
read again: every difference to what was told last is an event.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from slipway.common.v1 import watch_pb2
from slipway.registry.v1 import snapshot_pb2 as pb
from slipway_service import wire
from slipway_service.eventlog import Entry, EventLog

from slipway_registry.cache.index import Change
from slipway_registry.cache.journal import Event, Journal, Recorded
from slipway_registry.cache.pin import Pin
from slipway_registry.cache.snapshot import Snapshot
from slipway_registry.jobs.store import Store
from slipway_registry.rpc import snapshot_messages as messages
from slipway_registry.rpc.topic_log import TopicLog

Place = tuple[str, str]
"""Where a snapshot is in a list: repository, commit."""


class SnapshotLog:
    """The listener of the keeper: each change is made a message and serialised once. Reads `store`: for a thread."""

    def __init__(self, store: Store) -> None:
        journal = Journal(store, "snapshots")
        past = journal.read()
        self._of_snapshots = TopicLog(journal, past, _snapshot_entry)
        told = (pb.SnapshotEvent.FromString(it.payload).snapshot for it in past.latest)
        self._messages: dict[Place, pb.Snapshot] = {(it.repo_id, it.commit): it for it in told}
        journal = Journal(store, "pins")
        past = journal.read()
        self._of_pins = TopicLog(journal, past, _pin_entry)
        pins = (pb.PinEvent.FromString(it.payload).pin for it in past.latest)
        self._pins: dict[str, pb.Pin] = {it.name: it for it in pins}
        self._places: list[Place] | None = None

    @property
    def snapshots(self) -> EventLog:
        """What WatchSnapshots serves."""
        return self._of_snapshots.log

    @property
    def pins(self) -> EventLog:
        """What WatchPins serves."""
        return self._of_pins.log

    def snapshot(self, change: Change) -> None:
        """A snapshot has appeared, changed or gone."""
        known = change.now or change.before
        assert known is not None
        place = (known.repo, known.commit)
        told = self._messages.get(place)
        if told is not None and (change.now is None or change.now.record.uid != told.uid):
            self._forget(place)
            told = None
        if change.now is not None and (message := messages.snapshot(change.now)) != told:
            self._places = None
            self._messages[place] = message
            payload = pb.SnapshotEvent(snapshot=message).SerializeToString()
            self._of_snapshots.add(Event(key=message.name, payload=payload))

    def verifying(self, progress: pb.SnapshotVerification) -> None:
        """New figures of a verification."""
        self.snapshots.progress(progress.name, wire.event_field(pb.SnapshotEvent(progress=progress)))

    def pin(self, pin: Pin, *, ended: bool = False) -> None:
        """A pin was taken, renewed, asked for, or has ended."""
        if ended:
            self._unpin(pin.name)
        elif (message := messages.pin(pin)) != self._pins.get(pin.name):
            self._pins[pin.name] = message
            payload = pb.PinEvent(pin=message).SerializeToString()
            self._of_pins.add(Event(key=pin.name, payload=payload, label=pin.holder))

    def begin(self, snapshots: Iterable[Snapshot], pins: Iterable[Pin]) -> None:
        """The whole cache has been read: what was told of others has gone meanwhile."""
        there = {(it.repo, it.commit) for it in snapshots}
        for place in sorted(self._messages.keys() - there):
            self._forget(place)
        live = {pin.name: pin for pin in pins}
        for name in sorted(self._pins.keys() - live.keys()):
            self._unpin(name)
        for pin in live.values():
            self.pin(pin)

    async def settle(self) -> None:
        """Return when what was told is stored and shown, or will be later because the database cannot be written."""
        await self._of_snapshots.settle()
        await self._of_pins.settle()

    def listed(self, after: Place | None, repo: str) -> Iterator[pb.Snapshot]:
        """Snapshots behind that place, of one repository or (empty) of all, in order; messages not to be changed."""
        if self._places is None:
            self._places = sorted(self._messages)
        start = bisect_right(self._places, after) if after else 0
        for place in self._places[start:]:
            if not repo or place[0] == repo:
                yield self._messages[place]

    def _forget(self, place: Place) -> None:
        self._places = None
        told = self._messages.pop(place)
        gone = pb.SnapshotEvent(deleted=watch_pb2.Deleted(name=told.name, uid=told.uid))
        self._of_snapshots.add(Event(key=told.name, payload=gone.SerializeToString(), deleted=True))

    def _unpin(self, name: str) -> None:
        if (told := self._pins.pop(name, None)) is not None:
            gone = pb.PinEvent(deleted=watch_pb2.Deleted(name=name, uid=name.partition("/")[2]))
            payload = gone.SerializeToString()
            self._of_pins.add(Event(key=name, payload=payload, deleted=True, label=told.holder))


def _snapshot_entry(it: Recorded) -> Entry:
    event = pb.SnapshotEvent.FromString(it.payload)
    return Entry(
        revision=it.revision,
        key=it.key,
        event=wire.event_field(event),
        done=it.deleted or event.snapshot.complete,
        deleted=it.deleted,
    )


def _pin_entry(it: Recorded) -> Entry:
    event = pb.PinEvent.FromString(it.payload)
    field = wire.event_field(event)
    return Entry(revision=it.revision, key=it.key, event=field, done=it.deleted, deleted=it.deleted, label=it.label)
