"""Jobs are pinned and deleted; what each whole step weighs; why a worker begins nothing.

Revision 0005, after 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Columns that are empty at first, and a table: the janitor fills it with what the store holds."""
    for name in ("pinned_by", "deleted_by"):
        op.add_column("jobs", sa.Column(name, sa.String(80)))
    op.add_column("jobs", sa.Column("deleted_at", sa.DateTime(timezone=True)))
    op.create_index("ix_jobs_deleted_at", "jobs", ["deleted_at"])
    op.add_column("sweeps", sa.Column("deleted_by", sa.String(80)))
    op.add_column("sweeps", sa.Column("deleted_at", sa.DateTime(timezone=True)))
    op.add_column("workers", sa.Column("refuses", sa.String(200)))
    op.create_table(
        "stored_steps",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_stored_steps"),
    )


def downgrade() -> None:
    """What is in the trash comes back."""
    op.drop_table("stored_steps")
    op.drop_column("workers", "refuses")
    op.drop_column("sweeps", "deleted_at")
    op.drop_column("sweeps", "deleted_by")
    op.drop_index("ix_jobs_deleted_at", "jobs")
    for name in ("deleted_at", "deleted_by", "pinned_by"):
        op.drop_column("jobs", name)
