"""The registry's tables. SQLAlchemy Core; nothing in it is SQLite's own, so that PostgreSQL can come."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()

# One row. `revision` counts transitions and is raised in the transaction that records one; `compacted` is the last
# revision that `events` does not have any more.
log = Table(
    "log",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("registry_id", String(32), nullable=False),
    Column("epoch", String(36), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("compacted", BigInteger, nullable=False),
    Column("boot_id", String(36), nullable=False),
    Column("clean", Boolean, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("time", Float, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("name", String(255), nullable=False),
    Column("uid", String(32), nullable=False),
    Column("payload", Text),  # JSON of the resource; NULL: deleted
)

# The whole listing of a commit, once for all downloads of it; JSON.
listings = Table(
    "listings",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("repo", String(255), nullable=False),
    Column("commit", String(40), nullable=False),
    Column("files", Text, nullable=False),
    Index("listings_by_commit", "repo", "commit", unique=True),
)

downloads = Table(
    "downloads",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("key", String(64), nullable=False),
    Column("repo", String(255), nullable=False),
    Column("commit", String(40), nullable=False),
    Column("state", String(16), nullable=False),
    Column("live", Boolean, nullable=False),
    Column("create_time", Float, nullable=False),
    Column("end_time", Float),
    Column("record", Text, nullable=False),  # JSON of the Download
    Column("paths", Text, nullable=False),  # JSON of the selected paths
    Column("listing", Integer, ForeignKey("listings.id"), nullable=False),
    Index("downloads_by_time", "create_time", "id"),
    Index("one_live_download", "key", unique=True, sqlite_where=text("live"), postgresql_where=text("live")),
)

# Blobs that this registry has hashed, and what the file looked like then: unchanged, it need not be hashed again.
blobs = Table(
    "blobs",
    metadata,
    Column("repo", String(255), primary_key=True),
    Column("etag", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("inode", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("verify_time", Float, nullable=False),
    Column("block_crcs", LargeBinary),  # crc32c per MiB, where the transfer was ours: finds a damaged spot
    Index("blobs_by_etag", "etag"),
)

# Commits that the cache holds. A row lives as long as its snapshot: downloaded again, it gets another uid.
snapshots = Table(
    "snapshots",
    metadata,
    Column("repo", String(255), primary_key=True),
    Column("commit", String(40), primary_key=True),
    Column("uid", String(32), nullable=False),
    Column("create_time", Float, nullable=False),
    Column("use_time", Float, nullable=False),
)

pins = Table(
    "pins",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("holder", String(256), nullable=False),
    Column("claim", String(256), nullable=False),
    Column("repo", String(255), nullable=False),
    Column("commit", String(40), nullable=False),
    Column("paths", Text, nullable=False),  # JSON; an empty list is the whole snapshot
    Column("expire_time", Float),  # NULL: it does not end by itself
    Column("create_time", Float, nullable=False),
    Index("one_pin_per_claim", "holder", "claim", "repo", "commit", unique=True),
)

# Blobs whose last hash was wrong, and what the file looked like then: changed since, nothing is known of it.
damaged_blobs = Table(
    "damaged_blobs",
    metadata,
    Column("repo", String(255), primary_key=True),
    Column("etag", String(64), primary_key=True),
    Column("inode", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("block_crcs", LargeBinary),  # as in `blobs`, of the right content: says which blocks are damaged
)

# One row for each topic that is watched beside downloads (snapshots, pins); `revision` and `compacted` as in `log`.
topics = Table(
    "topics",
    metadata,
    Column("topic", String(16), primary_key=True),
    Column("epoch", String(36), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("compacted", BigInteger, nullable=False),
)

topic_events = Table(
    "topic_events",
    metadata,
    Column("topic", String(16), primary_key=True),
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("key", String(255), nullable=False),
    Column("payload", LargeBinary, nullable=False),  # the event as the contract has it
    Column("deleted", Boolean, nullable=False),
    Column("label", String(256), nullable=False),  # what watchers may filter by: the holder of a pin
    Index("topic_events_by_key", "topic", "key", "revision"),
)
