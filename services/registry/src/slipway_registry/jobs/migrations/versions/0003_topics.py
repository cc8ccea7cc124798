"""Events of snapshots and pins."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create their tables."""
    op.create_table(
        "topics",
        sa.Column("topic", sa.String(16), primary_key=True),
        sa.Column("epoch", sa.String(36), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("compacted", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "topic_events",
        sa.Column("topic", sa.String(16), primary_key=True),
        sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.Column("label", sa.String(256), nullable=False),
    )
    op.create_index("topic_events_by_key", "topic_events", ["topic", "key", "revision"])
