"""Steps say how much memory they take; workers say how much they have, who else is on their GPU, and can be drained.

Revision 0007, after 0006.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

STEPS = ("host_bytes", "device_bytes")
WORKERS = ("host_free_bytes", "host_total_bytes", "device_free_bytes", "device_total_bytes")


def upgrade() -> None:
    """Columns that are empty at first: nothing is known of steps that are there already, and workers tell within seconds."""
    for name in STEPS:
        op.add_column("steps", sa.Column(name, sa.BigInteger()))
    op.add_column("workers", sa.Column("draining_by", sa.String(80)))
    for name in WORKERS:
        op.add_column("workers", sa.Column(name, sa.BigInteger()))
    for name in ("strangers", "samples"):
        op.add_column("workers", sa.Column(name, sa.JSON()))


def downgrade() -> None:
    """Workers that were drained take steps again."""
    for name in ("draining_by", *WORKERS, "strangers", "samples"):
        op.drop_column("workers", name)
    for name in STEPS:
        op.drop_column("steps", name)
