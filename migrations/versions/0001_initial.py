"""Users, jobs, steps, and what steps leave.

Revision 0001, the first.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Column

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.String(40)
STEP_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
SHA256 = sa.String(64)
RUNNING = sa.text("state = 'running'")


def upgrade() -> None:
    """From nothing."""
    _users()
    _sweeps()
    _jobs()
    _steps()
    _attempts()
    _output()


def downgrade() -> None:
    """To nothing."""
    names = ("workers", "previews", "marks", "metrics", "events", "attempts", "step_needs", "steps", "jobs", "sweeps")
    for table in (*names, "tokens", "users"):
        op.drop_table(table)


def _users() -> None:
    op.create_table(
        "users",
        Column("id", ID, primary_key=True),
        Column("name", sa.String(80), nullable=False, unique=True),
        Column("role", sa.String(20), nullable=False),
        Column("created_at", TIME, nullable=False),
    )
    op.create_table(
        "tokens",
        Column("id", ID, primary_key=True),
        Column("user_id", ID, sa.ForeignKey("users.id"), nullable=False, index=True),
        Column("kind", sa.String(20), nullable=False),
        Column("name", sa.String(80), nullable=False),
        Column("sha256", SHA256, nullable=False, unique=True),
        Column("created_at", TIME, nullable=False),
        Column("expires_at", TIME),
        Column("last_used_at", TIME),
        Column("revoked_at", TIME),
    )


def _sweeps() -> None:
    op.create_table(
        "sweeps",
        Column("id", ID, primary_key=True),
        Column("owner_id", ID, sa.ForeignKey("users.id"), nullable=False),
        Column("name", sa.String(80), nullable=False),
        Column("spec", sa.JSON(), nullable=False),
        Column("axes", sa.JSON(), nullable=False),
        Column("request_sha256", SHA256, nullable=False),
        Column("idempotency_key", sa.String(255)),
        Column("created_at", TIME, nullable=False),
    )
    op.create_index("uq_sweeps_owner_id_idempotency_key", "sweeps", ["owner_id", "idempotency_key"], unique=True)


def _jobs() -> None:
    op.create_table(
        "jobs",
        Column("id", ID, primary_key=True),
        Column("owner_id", ID, sa.ForeignKey("users.id"), nullable=False),
        Column("name", sa.String(80), nullable=False),
        Column("spec", sa.JSON(), nullable=False),
        Column("spec_sha256", SHA256, nullable=False),
        Column("rows", sa.JSON(), nullable=False),
        Column("package_key", SHA256, nullable=False),
        Column("sweep_id", ID, sa.ForeignKey("sweeps.id"), index=True),
        Column("cell", sa.JSON()),
        Column("idempotency_key", sa.String(255)),
        Column("state", sa.String(20), nullable=False, index=True),
        Column("priority", sa.Integer(), nullable=False),
        Column("cancel_requested", sa.Boolean(), nullable=False),
        Column("error", sa.JSON()),
        Column("last_seq", sa.Integer(), nullable=False),
        Column("created_at", TIME, nullable=False),
        Column("started_at", TIME),
        Column("finished_at", TIME),
    )
    op.create_index("uq_jobs_owner_id_idempotency_key", "jobs", ["owner_id", "idempotency_key"], unique=True)
    op.create_index("ix_jobs_owner_id_state", "jobs", ["owner_id", "state"])


def _steps() -> None:
    op.create_table(
        "steps",
        Column("id", STEP_ID, primary_key=True),
        Column("job_id", ID, sa.ForeignKey("jobs.id"), nullable=False, index=True),
        Column("position", sa.Integer(), nullable=False),
        Column("key", SHA256, nullable=False, index=True),
        Column("kind", sa.String(20), nullable=False),
        Column("title", sa.String(200), nullable=False),
        Column("params", sa.JSON(), nullable=False),
        Column("needs", sa.JSON(), nullable=False),
        Column("flop", sa.Double(), nullable=False),
        Column("size_bytes", sa.BigInteger(), nullable=False),
        Column("state", sa.String(20), nullable=False),
        Column("cached", sa.Boolean(), nullable=False),
        Column("fence", sa.Integer(), nullable=False),
        Column("beat", sa.Integer(), nullable=False),
        Column("worker", sa.String(80)),
        Column("attempts", sa.Integer(), nullable=False),
        Column("crash_streak", sa.Integer(), nullable=False),
        Column("not_before", sa.Double(), nullable=False),
        Column("done", sa.Integer(), nullable=False),
        Column("total", sa.Integer(), nullable=False),
        Column("unit", sa.String(20), nullable=False),
        Column("result", sa.JSON()),
        Column("error", sa.JSON()),
        Column("seconds", sa.Double()),
        Column("started_at", TIME),
        Column("finished_at", TIME),
    )
    op.create_index("uq_steps_job_id_key", "steps", ["job_id", "key"], unique=True)
    op.create_index(
        "uq_steps_key_running", "steps", ["key"], unique=True, sqlite_where=RUNNING, postgresql_where=RUNNING
    )
    op.create_index("ix_steps_state_id", "steps", ["state", "id"])


def _attempts() -> None:
    op.create_table(
        "step_needs",
        Column("step_id", STEP_ID, sa.ForeignKey("steps.id"), primary_key=True),
        Column("need_id", STEP_ID, sa.ForeignKey("steps.id"), primary_key=True, index=True),
    )
    op.create_table(
        "attempts",
        Column("step_id", STEP_ID, sa.ForeignKey("steps.id"), primary_key=True),
        Column("fence", sa.Integer(), primary_key=True),
        Column("worker", sa.String(80), nullable=False),
        Column("host", sa.String(255), nullable=False),
        Column("pid", sa.Integer()),
        Column("pid_started", sa.Double()),
        Column("device", sa.String(40), nullable=False),
        Column("outcome", sa.String(40)),
        Column("detail", sa.Text()),
        Column("started_at", TIME, nullable=False),
        Column("finished_at", TIME),
    )
    op.create_table(
        "events",
        Column("job_id", ID, sa.ForeignKey("jobs.id"), primary_key=True),
        Column("seq", sa.Integer(), primary_key=True),
        Column("step_id", STEP_ID, sa.ForeignKey("steps.id")),
        Column("fence", sa.Integer(), nullable=False),
        Column("kind", sa.String(40), nullable=False),
        Column("data", sa.JSON(), nullable=False),
        Column("at", TIME, nullable=False),
    )


def _output() -> None:
    op.create_table(
        "metrics",
        Column("step_key", SHA256, primary_key=True),
        Column("name", sa.String(80), primary_key=True),
        Column("x", sa.Integer(), primary_key=True),
        Column("value", sa.Double(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "marks",
        Column("step_key", SHA256, primary_key=True),
        Column("x", sa.Integer(), primary_key=True),
        Column("data", sa.JSON(), nullable=False),
    )
    op.create_table(
        "previews",
        Column("step_key", SHA256, primary_key=True),
        Column("x", sa.Integer(), primary_key=True),
        Column("sha256", SHA256, nullable=False, index=True),
        Column("data", sa.JSON(), nullable=False),
    )
    op.create_table(
        "workers",
        Column("id", sa.String(80), primary_key=True),
        Column("host", sa.String(255), nullable=False),
        Column("pid", sa.Integer(), nullable=False),
        Column("device", sa.String(40), nullable=False),
        Column("device_name", sa.String(120), nullable=False),
        Column("version", sa.String(40), nullable=False),
        Column("step_id", STEP_ID, sa.ForeignKey("steps.id")),
        Column("started_at", TIME, nullable=False),
        Column("seen_at", TIME, nullable=False),
    )
