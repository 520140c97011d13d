"""Uploads are images or weights.

Revision 0009, after 0008.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TABLES = ("uploads", "arrivals")


def upgrade() -> None:
    """What is there already are images."""
    for table in TABLES:
        op.add_column(table, sa.Column("kind", sa.String(10), nullable=False, server_default="images"))
    op.add_column("arrivals", sa.Column("network", sa.String(40), nullable=True))


def downgrade() -> None:
    """Weights would be taken for images: they go."""
    for table in TABLES:
        rows = sa.table(table, sa.column("kind"))
        op.execute(sa.delete(rows).where(rows.c.kind == "weights"))
    op.drop_column("arrivals", "network")
    for table in TABLES:
        op.drop_column(table, "kind")
