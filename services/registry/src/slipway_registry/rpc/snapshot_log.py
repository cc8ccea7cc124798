"""What happens to snapshots and pins, as entries of the event logs that WatchSnapshots and WatchPins serve.

Their epochs are the process's: what other programs did to the cache while the registry was away is in no log, so that
watchers begin with the state again.
"""

import uuid
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from slipway.common.v1 import watch_pb2
from slipway.registry.v1 import snapshot_pb2 as pb
from slipway_service import wire
from slipway_service.eventlog import EventLog

from slipway_registry.cache.index import Change
from slipway_registry.cache.pin import Pin
from slipway_registry.rpc import snapshot_messages as messages

Place = tuple[str, str]
"""Where a snapshot is in a list: repository, commit."""


class SnapshotLog:
    """The listener of the keeper: each change is made a message and serialised once."""

    def __init__(self, pins: Sequence[Pin]) -> None:
        self.snapshots = EventLog(str(uuid.uuid4()))
        self.pins = EventLog(str(uuid.uuid4()))
        self._messages: dict[Place, pb.Snapshot] = {}
        self._places: list[Place] | None = None
        for pin in pins:
            self.pin(pin)

    def snapshot(self, change: Change) -> None:
        """A snapshot has appeared, changed or gone."""
        before, now = change.before, change.now
        self._places = None
        if before is not None and (now is None or now.record.uid != before.record.uid):
            del self._messages[before.repo, before.commit]
            deleted = watch_pb2.Deleted(name=before.name, uid=before.record.uid)
            self.snapshots.delete(before.name, wire.event_field(pb.SnapshotEvent(deleted=deleted)))
        if now is not None:
            message = self._messages[now.repo, now.commit] = messages.snapshot(now)
            event = wire.event_field(pb.SnapshotEvent(snapshot=message))
            self.snapshots.append(now.name, event, done=now.complete)

    def verifying(self, progress: pb.SnapshotVerification) -> None:
        """New figures of a verification."""
        self.snapshots.progress(progress.name, wire.event_field(pb.SnapshotEvent(progress=progress)))

    def pin(self, pin: Pin, *, ended: bool = False) -> None:
        """A pin was taken, renewed, asked for, or has ended."""
        if ended:
            deleted = watch_pb2.Deleted(name=pin.name, uid=pin.id)
            self.pins.delete(pin.name, wire.event_field(pb.PinEvent(deleted=deleted)))
        else:
            event = wire.event_field(pb.PinEvent(pin=messages.pin(pin)))
            self.pins.append(pin.name, event, label=pin.holder)

    def listed(self, after: Place | None, repo: str) -> Iterator[pb.Snapshot]:
        """Snapshots behind that place, of one repository or (empty) of all, in order; messages not to be changed."""
        if self._places is None:
            self._places = sorted(self._messages)
        start = bisect_right(self._places, after) if after else 0
        for place in self._places[start:]:
            if not repo or place[0] == repo:
                yield self._messages[place]
