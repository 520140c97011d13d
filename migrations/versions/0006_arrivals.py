"""Files that come piece by piece.

Revision 0006, after 0005.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A table."""
    op.create_table(
        "arrivals",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("owner_id", sa.String(40), nullable=False),
        sa.Column("title", sa.String(80), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("skip_bad", sa.Boolean(), nullable=False),
        sa.Column("upload_id", sa.String(64), nullable=True),
        sa.Column("problem", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_arrivals"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_arrivals_owner_id_users"),
    )
    op.create_index("ix_arrivals_owner_id", "arrivals", ["owner_id"])
    op.create_index("ix_arrivals_expires_at", "arrivals", ["expires_at"])


def downgrade() -> None:
    """What was on its way is lost."""
    op.drop_table("arrivals")
