"""Jobs count the bytes of their log and their contact sheets, uploads what they take in the store: all are limited.

Revision 0008, after 0007.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Jobs count from now on. Uploads that say nothing of what was unpacked count as their archive."""
    op.add_column("jobs", sa.Column("log_bytes", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("previews", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("uploads", sa.Column("held_bytes", sa.BigInteger(), nullable=False, server_default="0"))
    uploads = sa.table("uploads", *map(sa.column, ("id", "size_bytes", "held_bytes")), sa.column("facts", sa.JSON))
    connection = op.get_bind()
    for id_, size_bytes, facts in connection.execute(
        sa.select(uploads.c.id, uploads.c.size_bytes, uploads.c.facts)
    ).all():
        held = facts.get("unpacked_bytes") or size_bytes
        connection.execute(sa.update(uploads).where(uploads.c.id == id_).values(held_bytes=held))


def downgrade() -> None:
    """Nothing is limited any more."""
    for name in ("log_bytes", "previews"):
        op.drop_column("jobs", name)
    op.drop_column("uploads", "held_bytes")
