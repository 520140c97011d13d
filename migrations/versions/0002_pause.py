"""Jobs pause; what users had of the workers lately is found quickly.

Revision 0002, after 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A column that is empty at first, and an index."""
    op.add_column("jobs", sa.Column("paused_by", sa.String(80)))
    op.create_index("ix_attempts_finished_at", "attempts", ["finished_at"])


def downgrade() -> None:
    """Jobs that are paused go on as soon as a step of theirs changes."""
    op.drop_index("ix_attempts_finished_at", "attempts")
    op.execute("UPDATE jobs SET state = 'running' WHERE state = 'paused'")
    op.drop_column("jobs", "paused_by")
