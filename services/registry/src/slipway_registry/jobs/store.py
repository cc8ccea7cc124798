"""The registry's records: downloads, verified blobs, and the durable event log, in one database.

Synchronous; the scheduler calls it from a worker thread. Each change of a download and its event are one transaction.
"""

import contextlib
import json
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
from slipway_service.fault import Fault, Precondition, Reason
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import RepoId
from sqlalchemy import Connection, Engine, RowMapping, create_engine, delete, event, insert, select, tuple_, update
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import IntegrityError, OperationalError

from slipway_registry.jobs import schema
from slipway_registry.jobs.records import Download
from slipway_registry.jobs.serial import dump_download, dump_listing, load_download, load_listing
from slipway_registry.transfer.frontier import boot_id

# Events kept for watchers that were away: some days of a busy registry, a few hundred MB at the very most.
LOG_LENGTH = 100_000

DOWNLOAD = "download"

_READ_ONLY = "slipway_read_only"


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in the event log."""

    epoch: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A transition: the resource after it, or None when it was deleted."""

    revision: int
    name: str
    uid: str
    download: Download | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedBlob:
    """A blob that was hashed by us, and what its file looked like then."""

    repo: RepoId
    etag: str
    size: int
    inode: int
    mtime_ns: int
    block_crcs: bytes | None = None


class Store:
    """Opens the database at a SQLAlchemy URL and brings its schema up to date.

    A database that was not closed before the host went down may have lost its last transactions (WAL without an fsync
    per commit): it then begins a new epoch, so that no watcher's cursor can mean two things.
    """

    def __init__(self, url: str, *, boot: uuid.UUID | None = None) -> None:
        self._engine = _engine(url)
        self._reader = self._engine.execution_options(**{_READ_ONLY: True})
        self._boot = str(boot or boot_id())
        with self._writing() as connection:
            _migrate(connection)
        with self._writing() as connection:
            self.registry_id, self.epoch = self._begin(connection)

    @classmethod
    def in_directory(cls, directory: Path, boot: uuid.UUID | None = None) -> "Store":
        """The SQLite database of a state directory."""
        return cls(f"sqlite:///{directory / 'registry.sqlite3'}", boot=boot)

    def close(self) -> None:
        """Mark the database as closed in good order, with everything on the disk, if that can be."""
        with contextlib.suppress(Fault):  # then it looks as a killed process leaves it
            with self._writing() as connection:
                connection.execute(update(schema.log).values(clean=True))
            self.checkpoint()
        self._engine.dispose()

    def checkpoint(self) -> None:
        """Move SQLite's write-ahead log into the database: the one thing here that waits for the disk.

        Raises:
            Fault: DISK_FULL or DISK_FAULT if the database cannot be written; nothing is lost then.
        """
        if self._engine.dialect.name == "sqlite":
            with contextlib.closing(self._engine.raw_connection()) as connection:
                try:
                    connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
                except sqlite3.OperationalError as error:
                    raise self._unwritable(error) from error

    def head(self) -> Cursor:
        """The newest revision."""
        with self._reader.connect() as connection:
            return Cursor(self.epoch, connection.execute(select(schema.log.c.revision)).scalar_one())

    def create(self, download: Download, paths: Sequence[str], listing: Iterable[RepoFile]) -> tuple[Download, bool]:
        """Record a new download and its first event; the live one of the same key instead, if there is one.

        Returns:
            The download as recorded, and whether it is new.
        """
        live = not download.state.terminal
        try:
            with self._writing() as connection:
                if live and (found := self._live_by_key(connection, download.key)):
                    return found, False
                listing_id = _listing_id(connection, download, listing)
                recorded = self._append(connection, download)
                connection.execute(
                    insert(schema.downloads).values(
                        id=download.id, paths=json.dumps(list(paths)), listing=listing_id, **_columns(recorded)
                    )
                )
                return recorded, True
        except IntegrityError:  # another process was first
            with self._reader.connect() as connection:
                if found := self._live_by_key(connection, download.key):
                    return found, False
            raise

    def save(self, download: Download) -> Download:
        """Record a transition; returns the download with its new revision."""
        with self._writing() as connection:
            recorded = self._append(connection, download)
            statement = update(schema.downloads).where(schema.downloads.c.id == download.id)
            connection.execute(statement.values(**_columns(recorded)))
            return recorded

    def note(self, download: Download) -> None:
        """Record what callers do not see: no transition, no event."""
        with self._writing() as connection:
            statement = update(schema.downloads).where(schema.downloads.c.id == download.id)
            connection.execute(statement.values(**_columns(download)))

    def get(self, download_id: str) -> Download:
        """One download.

        Raises:
            Fault: DOWNLOAD_NOT_FOUND.
        """
        with self._reader.connect() as connection:
            row = connection.execute(
                select(schema.downloads.c.record).where(schema.downloads.c.id == download_id)
            ).first()
        if row is None:
            name = f"downloads/{download_id}"
            text = f"there is no {name}; finished ones are forgotten in time"
            raise Fault(Reason.DOWNLOAD_NOT_FOUND, text, resource=name)
        return load_download(row.record)

    def live(self) -> list[Download]:
        """Every download that is not in a terminal state, oldest first."""
        columns = schema.downloads.c
        with self._reader.connect() as connection:
            rows = connection.execute(
                select(columns.record).where(columns.live).order_by(columns.create_time, columns.id)
            )
            return [load_download(row.record) for row in rows]

    def page(self, *, limit: int, after: str | None = None, repo: str | None = None) -> list[Download]:
        """Downloads, newest first, beginning behind the one with id `after`."""
        columns = schema.downloads.c
        query = select(columns.record).order_by(columns.create_time.desc(), columns.id.desc()).limit(limit)
        if repo is not None:
            query = query.where(columns.repo == repo)
        if after is not None:
            place = select(columns.create_time, columns.id).where(columns.id == after).subquery()
            query = query.where(
                tuple_(columns.create_time, columns.id)
                < tuple_(select(place.c.create_time).scalar_subquery(), select(place.c.id).scalar_subquery())
            )
        with self._reader.connect() as connection:
            return [load_download(row.record) for row in connection.execute(query)]

    def files(self, download_id: str) -> tuple[tuple[str, ...], tuple[RepoFile, ...]]:
        """The selected paths, and the whole listing of the commit."""
        query = (
            select(schema.downloads.c.paths, schema.listings.c.files)
            .join(schema.listings, schema.downloads.c.listing == schema.listings.c.id)
            .where(schema.downloads.c.id == download_id)
        )
        with self._reader.connect() as connection:
            row = connection.execute(query).one()
        return tuple(json.loads(row.paths)), load_listing(row.files)

    def replay(self, after: int) -> list[Entry] | None:
        """The transitions behind revision `after`, in order; None if the log does not reach back (or up) to it."""
        with self._reader.connect() as connection:
            head = connection.execute(select(schema.log.c.revision, schema.log.c.compacted)).one()
            if not head.compacted <= after <= head.revision:
                return None
            rows = connection.execute(
                select(schema.events).where(schema.events.c.revision > after).order_by(schema.events.c.revision)
            )
            return [_entry(row) for row in rows.mappings()]

    def history(self) -> list[Entry]:
        """All transitions that are kept, in order; the last one has the head's revision."""
        with self._reader.connect() as connection:
            rows = connection.execute(select(schema.events).order_by(schema.events.c.revision))
            return [_entry(row) for row in rows.mappings()]

    def compact(self, keep: int = LOG_LENGTH) -> None:
        """Forget all but the newest `keep` events."""
        with self._writing() as connection:
            revision = connection.execute(select(schema.log.c.revision)).scalar_one()
            if (last := revision - keep) > 0:
                connection.execute(delete(schema.events).where(schema.events.c.revision <= last))
                connection.execute(update(schema.log).where(schema.log.c.compacted < last).values(compacted=last))

    def expire(self, before: float) -> list[Entry]:
        """Delete the downloads that ended before that time (seconds since 1970), and listings that nothing needs."""
        columns = schema.downloads.c
        with self._writing() as connection:
            ids = connection.execute(
                select(columns.id).where(columns.end_time < before).order_by(columns.end_time)
            ).scalars()
            entries = [self._append_deleted(connection, download_id) for download_id in ids.all()]
            connection.execute(delete(schema.listings).where(schema.listings.c.id.not_in(select(columns.listing))))
            return entries

    def verified(self, etag: str) -> list[VerifiedBlob]:
        """Where this blob has been verified; the files may have changed since."""
        with self._reader.connect() as connection:
            rows = connection.execute(select(schema.blobs).where(schema.blobs.c.etag == etag)).mappings()
            return [_verified(row) for row in rows]

    def set_verified(self, blob: VerifiedBlob, *, at: float) -> None:
        """Remember that a blob has been hashed."""
        where = (schema.blobs.c.repo == blob.repo) & (schema.blobs.c.etag == blob.etag)
        values = {name: getattr(blob, name) for name in VerifiedBlob.__slots__}
        with self._writing() as connection:
            connection.execute(delete(schema.blobs).where(where))
            connection.execute(insert(schema.blobs).values(verify_time=at, **values))

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A consistent view of the database, for the records of the cache that lie in it too."""
        with self._reader.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction for those. Raises Fault(DISK_FULL, DISK_FAULT) if the database cannot be written."""
        with self._writing() as connection:
            yield connection

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction. Raises Fault(DISK_FULL, DISK_FAULT) if the database cannot be written."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except OperationalError as error:
            raise self._unwritable(error.orig) from error

    def _unwritable(self, error: BaseException | None) -> Fault:
        text = f"The registry's database cannot be written: {error}."
        if "full" not in str(error):  # what SQLite says for SQLITE_FULL
            return Fault(Reason.DISK_FAULT, text)
        where = self._engine.url.database or ""
        return Fault(Reason.DISK_FULL, text, preconditions=(Precondition("DISK", where, text),))

    def _begin(self, connection: Connection) -> tuple[str, str]:
        """Read or write the log's one row; a new epoch if the last boot may have taken transactions with it."""
        row = connection.execute(select(schema.log)).first()
        if row is None:
            registry_id, epoch = uuid.uuid4().hex, str(uuid.uuid4())
            connection.execute(
                insert(schema.log).values(
                    id=1, registry_id=registry_id, epoch=epoch, revision=0, compacted=0, boot_id=self._boot, clean=False
                )
            )
            return registry_id, epoch
        epoch = row.epoch if row.clean or row.boot_id == self._boot else str(uuid.uuid4())
        connection.execute(update(schema.log).values(epoch=epoch, boot_id=self._boot, clean=False))
        return row.registry_id, epoch

    def _live_by_key(self, connection: Connection, key: str) -> Download | None:
        columns = schema.downloads.c
        row = connection.execute(select(columns.record).where(columns.live, columns.key == key)).first()
        return load_download(row.record) if row else None

    def _append(self, connection: Connection, download: Download) -> Download:
        revision = _next_revision(connection)
        recorded = replace(download, log_revision=revision)
        _insert_event(connection, revision, recorded.name, recorded.id, dump_download(recorded))
        return recorded

    def _append_deleted(self, connection: Connection, download_id: str) -> Entry:
        revision = _next_revision(connection)
        name = f"downloads/{download_id}"
        _insert_event(connection, revision, name, download_id, None)
        connection.execute(delete(schema.downloads).where(schema.downloads.c.id == download_id))
        return Entry(revision=revision, name=name, uid=download_id, download=None)


def _engine(url: str) -> Engine:
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes its lock at once: one that reads first and writes later could be refused."""
    reads = connection.get_execution_options().get(_READ_ONLY)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _prepare_sqlite(connection: DBAPIConnection, _: object) -> None:
    """Commits must not wait for the disk, which a download may keep busy for seconds: `checkpoint` does."""
    connection.isolation_level = None  # the driver would begin transactions too late
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "wal_autocheckpoint=0",
        "foreign_keys=ON",
        "busy_timeout=10000",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _migrate(connection: Connection) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    alembic.command.upgrade(config, "head")


def _next_revision(connection: Connection) -> int:
    """Raise the one counter; its row is locked until the transaction ends, which keeps revisions in commit order."""
    connection.execute(update(schema.log).values(revision=schema.log.c.revision + 1))
    return int(connection.execute(select(schema.log.c.revision)).scalar_one())


def _insert_event(connection: Connection, revision: int, name: str, uid: str, payload: str | None) -> None:
    values = {"revision": revision, "time": time.time(), "kind": DOWNLOAD, "name": name, "uid": uid, "payload": payload}
    connection.execute(insert(schema.events).values(**values))


def _entry(row: RowMapping) -> Entry:
    payload = row["payload"]
    return Entry(
        revision=row["revision"],
        name=row["name"],
        uid=row["uid"],
        download=load_download(payload) if payload is not None else None,
    )


def _verified(row: RowMapping) -> VerifiedBlob:
    values = {name: row[name] for name in VerifiedBlob.__slots__}
    return VerifiedBlob(**values | {"repo": RepoId(row["repo"])})


def _columns(download: Download) -> dict[str, Any]:
    return {
        "key": download.key,
        "repo": download.repo,
        "commit": download.commit,
        "state": download.state.value,
        "live": not download.state.terminal,
        "create_time": download.create_time.timestamp(),
        "end_time": download.end_time.timestamp() if download.end_time else None,
        "record": dump_download(download),
    }


def _listing_id(connection: Connection, download: Download, listing: Iterable[RepoFile]) -> int:
    columns = schema.listings.c
    where = (columns.repo == download.repo) & (columns.commit == download.commit)
    if (found := connection.execute(select(columns.id).where(where)).scalar()) is not None:
        return int(found)
    values = {"repo": download.repo, "commit": download.commit, "files": dump_listing(listing)}
    result = connection.execute(insert(schema.listings).values(**values))
    key = result.inserted_primary_key
    assert key is not None
    return int(key[0])
