"""Block checksums of damaged blobs, so that a later repair fetches the damaged blocks only."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add their column."""
    op.add_column("damaged_blobs", sa.Column("block_crcs", sa.LargeBinary))
