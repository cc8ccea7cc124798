"""Block checksums are crc32c from here on: those of earlier transfers (crc32) would call every block damaged."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Forget them; such a blob is repaired as a whole."""
    for name in ("blobs", "damaged_blobs"):
        op.execute(sa.update(sa.table(name, sa.column("block_crcs"))).values(block_crcs=None))
