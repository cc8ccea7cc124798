"""What is remembered of the cache beside the cache: snapshots' uids and times, pins, and what our hashes said."""

import json
from collections.abc import Mapping
from typing import Any

from slipway_service.weights.names import Commit, RepoId
from sqlalchemy import ColumnElement, Connection, RowMapping, Table, and_, delete, insert, select, update

from slipway_registry.cache.pin import Pin
from slipway_registry.cache.snapshot import Checked, Record
from slipway_registry.jobs import schema
from slipway_registry.jobs.store import Store

Key = tuple[RepoId, Commit]


class CacheRecords:
    """Rows in the registry's database. Safe for many threads.

    Writing raises Fault(DISK_FULL, DISK_FAULT) if the database cannot be written.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def snapshots(self) -> dict[Key, Record]:
        """Every snapshot that was there when last looked."""
        with self._store.reading() as connection:
            rows = connection.execute(select(schema.snapshots)).mappings()
            return {(RepoId(row["repo"]), Commit(row["commit"])): _record(row) for row in rows}

    def add_snapshots(self, records: Mapping[Key, Record]) -> None:
        """Remember snapshots that have appeared."""
        rows = [
            {"repo": repo, "commit": commit, "uid": it.uid, "create_time": it.create_time, "use_time": it.use_time}
            for (repo, commit), it in records.items()
        ]
        with self._store.writing() as connection:
            connection.execute(insert(schema.snapshots), rows)

    def forget_snapshot(self, key: Key) -> None:
        """It is gone."""
        with self._store.writing() as connection:
            connection.execute(delete(schema.snapshots).where(_at(schema.snapshots.c, key)))

    def set_used(self, key: Key, at: float) -> None:
        """Note that it was pinned or downloaded."""
        with self._store.writing() as connection:
            connection.execute(update(schema.snapshots).where(_at(schema.snapshots.c, key)).values(use_time=at))

    def pins(self) -> list[Pin]:
        """All pins, in the order in which they were taken."""
        with self._store.reading() as connection:
            rows = connection.execute(select(schema.pins).order_by(schema.pins.c.create_time, schema.pins.c.id))
            return [_pin(row) for row in rows.mappings()]

    def save_pin(self, pin: Pin) -> None:
        """Write a pin, new or renewed."""
        values = {
            "holder": pin.holder,
            "claim": pin.claim,
            "repo": pin.repo,
            "commit": pin.commit,
            "paths": json.dumps(pin.paths),
            "expire_time": pin.expire_time,
            "create_time": pin.create_time,
        }
        with self._store.writing() as connection:
            connection.execute(delete(schema.pins).where(schema.pins.c.id == pin.id))
            connection.execute(insert(schema.pins).values(id=pin.id, **values))

    def forget_pin(self, pin: Pin) -> None:
        """It has ended."""
        with self._store.writing() as connection:
            connection.execute(delete(schema.pins).where(schema.pins.c.id == pin.id))

    def checks(self, repo: RepoId) -> dict[str, Checked]:
        """What our hashes said of the repository's blobs, by name."""
        with self._store.reading() as connection:
            right = connection.execute(select(schema.blobs).where(schema.blobs.c.repo == repo)).mappings()
            wrong = connection.execute(select(schema.damaged_blobs).where(schema.damaged_blobs.c.repo == repo))
            found = {
                row["etag"]: Checked(inode=row["inode"], mtime_ns=row["mtime_ns"], time=row["verify_time"])
                for row in right
            }
            damaged = {
                row["etag"]: Checked(inode=row["inode"], mtime_ns=row["mtime_ns"], damaged=True)
                for row in wrong.mappings()
            }
        return damaged | found  # what was right after it had been damaged is right

    def set_damaged(self, repo: RepoId, etag: str, *, inode: int, mtime_ns: int) -> set[RepoId]:
        """Remember that the hash of a blob was wrong; that it was right before counts no more, its crcs do.

        Returns the repositories that have it: `repo`, and those whose blob is a hard link of the same file.
        """
        table, seen = schema.damaged_blobs, schema.blobs.c
        same = and_(seen.etag == etag, seen.inode == inode, seen.mtime_ns == mtime_ns)
        with self._store.writing() as connection:
            repos = {repo} | {RepoId(found) for found in connection.execute(select(seen.repo).where(same)).scalars()}
            for each in repos:
                crcs = _crcs(connection, each, etag)
                for known in (table, schema.blobs):
                    connection.execute(delete(known).where(_blob(known, each, etag)))
                row = {"repo": each, "etag": etag, "inode": inode, "mtime_ns": mtime_ns, "block_crcs": crcs}
                connection.execute(insert(table).values(**row))
        return repos

    def block_crcs(self, repo: RepoId, etag: str) -> bytes | None:
        """The crc of each block that the blob has to have, where its transfer was ours; right or damaged now."""
        with self._store.reading() as connection:
            return _crcs(connection, repo, etag)

    def clear_damaged(self, repo: RepoId, etag: str) -> None:
        """It is right now, or gone."""
        table = schema.damaged_blobs
        with self._store.writing() as connection:
            connection.execute(delete(table).where(_blob(table, repo, etag)))


def _blob(table: Table, repo: RepoId, etag: str) -> ColumnElement[bool]:
    return and_(table.c.repo == repo, table.c.etag == etag)


def _crcs(connection: Connection, repo: RepoId, etag: str) -> bytes | None:
    for table in (schema.blobs, schema.damaged_blobs):
        found = connection.execute(select(table.c.block_crcs).where(_blob(table, repo, etag))).scalar()
        if found is not None:
            return bytes(found)
    return None


def _at(columns: Any, key: Key) -> Any:
    return (columns.repo == key[0]) & (columns.commit == key[1])


def _record(row: RowMapping) -> Record:
    return Record(uid=row["uid"], create_time=row["create_time"], use_time=row["use_time"])


def _pin(row: RowMapping) -> Pin:
    return Pin(
        id=row["id"],
        holder=row["holder"],
        claim=row["claim"],
        repo=RepoId(row["repo"]),
        commit=Commit(row["commit"]),
        paths=tuple(json.loads(row["paths"])),
        expire_time=row["expire_time"],
        create_time=row["create_time"],
    )
