"""Attempts say whose they are, and one index holds all that a fair share is summed of.

Revision 0011, after 0010.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

COLUMNS = ("finished_at", "owner_id", "started_at", "outcome")
INDEX = f"ix_attempts_{'_'.join(COLUMNS)}"


def upgrade() -> None:
    """Attempts that were made already are those of their job's owner."""
    op.add_column("attempts", sa.Column("owner_id", sa.String(40), nullable=False, server_default=sa.text("''")))
    attempts = sa.table("attempts", sa.column("step_id"), sa.column("owner_id"))
    steps = sa.table("steps", sa.column("id"), sa.column("job_id"))
    jobs = sa.table("jobs", sa.column("id"), sa.column("owner_id"))
    owner = sa.select(jobs.c.owner_id).where(steps.c.id == attempts.c.step_id, jobs.c.id == steps.c.job_id)
    op.execute(sa.update(attempts).values(owner_id=owner.scalar_subquery()))
    op.drop_index("ix_attempts_finished_at", "attempts")
    op.create_index(INDEX, "attempts", list(COLUMNS))


def downgrade() -> None:
    """A fair share finds the owners by steps and jobs again."""
    op.drop_index(INDEX, "attempts")
    op.create_index("ix_attempts_finished_at", "attempts", ["finished_at"])
    op.drop_column("attempts", "owner_id")
