"""Downloads, listings, verified blobs and the event log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the first tables."""
    op.create_table(
        "log",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("registry_id", sa.String(32), nullable=False),
        sa.Column("epoch", sa.String(36), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("compacted", sa.BigInteger, nullable=False),
        sa.Column("boot_id", sa.String(36), nullable=False),
        sa.Column("clean", sa.Boolean, nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("time", sa.Float, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("uid", sa.String(32), nullable=False),
        sa.Column("payload", sa.Text),
    )
    op.create_table(
        "listings",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("repo", sa.String(255), nullable=False),
        sa.Column("commit", sa.String(40), nullable=False),
        sa.Column("files", sa.Text, nullable=False),
    )
    op.create_index("listings_by_commit", "listings", ["repo", "commit"], unique=True)
    op.create_table(
        "downloads",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("repo", sa.String(255), nullable=False),
        sa.Column("commit", sa.String(40), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("live", sa.Boolean, nullable=False),
        sa.Column("create_time", sa.Float, nullable=False),
        sa.Column("end_time", sa.Float),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("paths", sa.Text, nullable=False),
        sa.Column("listing", sa.Integer, sa.ForeignKey("listings.id"), nullable=False),
    )
    op.create_index("downloads_by_time", "downloads", ["create_time", "id"])
    op.create_index(
        "one_live_download",
        "downloads",
        ["key"],
        unique=True,
        sqlite_where=sa.text("live"),
        postgresql_where=sa.text("live"),
    )
    op.create_table(
        "blobs",
        sa.Column("repo", sa.String(255), primary_key=True),
        sa.Column("etag", sa.String(64), primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("inode", sa.BigInteger, nullable=False),
        sa.Column("mtime_ns", sa.BigInteger, nullable=False),
        sa.Column("verify_time", sa.Float, nullable=False),
        sa.Column("block_crcs", sa.LargeBinary),
    )
    op.create_index("blobs_by_etag", "blobs", ["etag"])
