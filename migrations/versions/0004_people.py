"""Passwords, disabled accounts, teams, visibility, scopes of tokens, and the audit log, to which rows are only added.

Revision 0004, after 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = ("jobs", "sweeps", "uploads")
VERBS = ("UPDATE", "DELETE")


def upgrade() -> None:
    """Tables, columns, and triggers that keep the audit log as it is."""
    op.add_column("users", sa.Column("password", sa.String(200)))
    op.add_column("users", sa.Column("disabled_at", sa.DateTime(timezone=True)))
    op.add_column("tokens", sa.Column("scopes", sa.JSON()))
    op.add_column("tokens", sa.Column("client", sa.String(200)))
    for table in TABLES:
        op.add_column(table, sa.Column("visibility", sa.String(10), nullable=False, server_default="private"))
    op.execute("UPDATE uploads SET visibility = 'all'")  # those that are here were everybody's to use
    _people()
    _audit()


def _people() -> None:
    op.create_table(
        "teams",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_teams"),
        sa.UniqueConstraint("name", name="uq_teams_name"),
    )
    op.create_table(
        "memberships",
        sa.Column("team_id", sa.String(40), nullable=False),
        sa.Column("user_id", sa.String(40), nullable=False),
        sa.PrimaryKeyConstraint("team_id", "user_id", name="pk_memberships"),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name="fk_memberships_team_id_teams"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_memberships_user_id_users"),
    )
    op.create_index("ix_memberships_user_id", "memberships", ["user_id"])
    op.create_table(
        "upload_holders",
        sa.Column("upload_id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(40), nullable=False),
        sa.PrimaryKeyConstraint("upload_id", "user_id", name="pk_upload_holders"),
        sa.ForeignKeyConstraint(
            ["upload_id"], ["uploads.id"], name="fk_upload_holders_upload_id_uploads", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_upload_holders_user_id_users"),
    )
    op.create_index("ix_upload_holders_user_id", "upload_holders", ["user_id"])


def _audit() -> None:
    op.create_table(
        "audit_events",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("actor_id", sa.String(40)),
        sa.Column("actor", sa.String(80), nullable=False),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("target", sa.String(80), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_events"),
    )
    op.create_index("ix_audit_events_actor_id", "audit_events", ["actor_id"])
    op.create_index("ix_audit_events_action", "audit_events", ["action"])
    told = "rows of the audit log are only added"
    if op.get_bind().dialect.name == "sqlite":
        for verb in VERBS:
            op.execute(
                f"CREATE TRIGGER audit_events_keep_{verb.lower()} BEFORE {verb} ON audit_events "
                f"BEGIN SELECT RAISE(ABORT, '{told}'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION audit_events_keep() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{told}'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER audit_events_keep BEFORE {' OR '.join(VERBS)} ON audit_events "
        "FOR EACH ROW EXECUTE FUNCTION audit_events_keep()"
    )


def downgrade() -> None:
    """Tokens that are good may do all that their user may; who was disabled has none; passwords, teams and the audit log go."""
    op.drop_table("audit_events")
    if op.get_bind().dialect.name != "sqlite":
        op.execute("DROP FUNCTION audit_events_keep()")
    op.drop_table("upload_holders")
    op.drop_table("memberships")
    op.drop_table("teams")
    for table in TABLES:
        op.drop_column(table, "visibility")
    op.execute("DELETE FROM tokens WHERE kind = 'invite'")
    op.drop_column("tokens", "client")
    op.drop_column("tokens", "scopes")
    op.drop_column("users", "disabled_at")
    op.drop_column("users", "password")
