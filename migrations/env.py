"""What Alembic runs: on the connection that app/migrate.py gives it."""

from __future__ import annotations

from alembic import context

from app import models

assert "jobs" in models.Base.metadata.tables  # importing the models made the tables known
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=models.Base.metadata,
    render_as_batch=True,  # SQLite changes a column by copying its table
    compare_server_default=True,
)
context.run_migrations()
