"""Names of users and of teams differ by more than their case; who sent the same bytes as another has a title of their own.

Revision 0010, after 0009.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TABLES = ("users", "teams")
END = 8  # characters of an id, which tell it from the others


def upgrade() -> None:
    """Of names that differ by their case alone the oldest stays, and the others get the end of their id."""
    for table in TABLES:
        rows = sa.table(table, sa.column("id"), sa.column("name"), sa.column("created_at"))
        taken = set[str]()
        oldest_first = sa.select(rows.c.id, rows.c.name, sa.func.lower(rows.c.name))
        for ident, name, lower in op.get_bind().execute(oldest_first.order_by(rows.c.created_at, rows.c.id)).all():
            if lower in taken:
                op.execute(sa.update(rows).where(rows.c.id == ident).values(name=f"{name[: 79 - END]}-{ident[-END:]}"))
            taken.add(lower)
        op.create_index(f"uq_{table}_lower_name", table, [sa.text("lower(name)")], unique=True)
    op.add_column("upload_holders", sa.Column("title", sa.String(80), nullable=True))


def downgrade() -> None:
    """Names may differ by their case alone."""
    op.drop_column("upload_holders", "title")
    for table in TABLES:
        op.drop_index(f"uq_{table}_lower_name", table)
