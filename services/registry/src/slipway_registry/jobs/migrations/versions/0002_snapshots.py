"""Snapshots, pins and damaged blobs."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables of what the cache holds."""
    op.create_table(
        "snapshots",
        sa.Column("repo", sa.String(255), primary_key=True),
        sa.Column("commit", sa.String(40), primary_key=True),
        sa.Column("uid", sa.String(32), nullable=False),
        sa.Column("create_time", sa.Float, nullable=False),
        sa.Column("use_time", sa.Float, nullable=False),
    )
    op.create_table(
        "pins",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("holder", sa.String(256), nullable=False),
        sa.Column("claim", sa.String(256), nullable=False),
        sa.Column("repo", sa.String(255), nullable=False),
        sa.Column("commit", sa.String(40), nullable=False),
        sa.Column("paths", sa.Text, nullable=False),
        sa.Column("expire_time", sa.Float),
        sa.Column("create_time", sa.Float, nullable=False),
    )
    op.create_index("one_pin_per_claim", "pins", ["holder", "claim", "repo", "commit"], unique=True)
    op.create_table(
        "damaged_blobs",
        sa.Column("repo", sa.String(255), primary_key=True),
        sa.Column("etag", sa.String(64), primary_key=True),
        sa.Column("inode", sa.BigInteger, nullable=False),
        sa.Column("mtime_ns", sa.BigInteger, nullable=False),
    )
