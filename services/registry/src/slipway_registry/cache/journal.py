"""What watchers of a topic (snapshots, pins) were told, in the registry's database: it outlives the process."""

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, exists, func, insert, or_, select, update

from slipway_registry.jobs import schema
from slipway_registry.jobs.store import Store

KEPT = 10_000
"""Events kept for watchers that come back: as many as the log in memory holds."""

_COMPACT_EVERY = 500
"""Events between two compactions, which cost some milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something to tell.

    Attributes:
        key: the resource's name.
        payload: the serialised event.
        deleted: the resource is gone.
        label: what watchers may filter by beside names.
    """

    key: str
    payload: bytes
    deleted: bool = False
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded(Event):
    """An event with its place, from 1."""

    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What a topic's earlier processes recorded.

    Attributes:
        revision: of the newest event; 0 without one.
        events: the newest ones, without gaps, ending at `revision`.
        latest: the last one of every resource that has not gone.
    """

    revision: int
    events: tuple[Recorded, ...]
    latest: tuple[Recorded, ...]


class Journal:
    """The events of one topic. Blocking; one thread at a time.

    Its epoch follows the store's: where a crash of the host may have taken events with it, revisions start over.

    Raises:
        Fault: DISK_FULL, DISK_FAULT, the database cannot be written; so do `append` and `read`.
    """

    def __init__(self, store: Store, topic: str, *, keep: int = KEPT) -> None:
        self._store = store
        self._topic = topic
        self._keep = keep
        self.epoch = str(uuid.uuid5(uuid.UUID(store.epoch), topic))
        self._events = schema.topic_events
        self._mine = self._events.c.topic == topic
        self._log = schema.topics
        with store.writing() as connection:
            self._begin(connection)

    def read(self) -> Past:
        """What there is."""
        with self._store.reading() as connection:
            head = connection.execute(select(self._log).where(self._log.c.topic == self._topic)).one()
            newer = connection.execute(
                select(self._events)
                .where(self._mine, self._events.c.revision > head.compacted)
                .order_by(self._events.c.revision)
            )
            events = tuple(_recorded(row) for row in newer)
            last = (
                select(func.max(self._events.c.revision).label("revision"))
                .where(self._mine)
                .group_by(self._events.c.key)
                .subquery()
            )
            latest = connection.execute(
                select(self._events)
                .join(last, self._events.c.revision == last.c.revision)
                .where(self._mine, self._events.c.deleted.is_(False))
                .order_by(self._events.c.revision)
            )
            return Past(revision=head.revision, events=events, latest=tuple(_recorded(row) for row in latest))

    def append(self, events: Sequence[Event]) -> list[Recorded]:
        """Record these, in one transaction."""
        with self._store.writing() as connection:
            where = self._log.c.topic == self._topic
            connection.execute(update(self._log).where(where).values(revision=self._log.c.revision + len(events)))
            head = int(connection.execute(select(self._log.c.revision).where(where)).scalar_one())
            recorded = [
                Recorded(revision=revision, key=it.key, payload=it.payload, deleted=it.deleted, label=it.label)
                for revision, it in enumerate(events, start=head - len(events) + 1)
            ]
            connection.execute(insert(self._events), [{"topic": self._topic, **asdict(it)} for it in recorded])
            if head // _COMPACT_EVERY != (head - len(events)) // _COMPACT_EVERY:
                self._compact(connection, head - self._keep)
            return recorded

    def _compact(self, connection: Connection, last: int) -> None:
        """Forget events up to that one, but for what says how resources are that have not changed since."""
        if last <= 0:
            return
        later = self._events.alias()
        changed = exists().where(
            and_(later.c.topic == self._topic, later.c.key == self._events.c.key)
            & (later.c.revision > self._events.c.revision)
        )
        connection.execute(
            delete(self._events).where(
                self._mine, self._events.c.revision <= last, or_(self._events.c.deleted.is_(True), changed)
            )
        )
        where = (self._log.c.topic == self._topic) & (self._log.c.compacted < last)
        connection.execute(update(self._log).where(where).values(compacted=last))

    def _begin(self, connection: Connection) -> None:
        row = connection.execute(select(self._log).where(self._log.c.topic == self._topic)).first()
        if row is not None and row.epoch == self.epoch:
            return
        connection.execute(delete(self._events).where(self._mine))
        connection.execute(delete(self._log).where(self._log.c.topic == self._topic))
        connection.execute(insert(self._log).values(topic=self._topic, epoch=self.epoch, revision=0, compacted=0))


def _recorded(row: Row[Any]) -> Recorded:
    return Recorded(revision=row.revision, key=row.key, payload=row.payload, deleted=row.deleted, label=row.label)
