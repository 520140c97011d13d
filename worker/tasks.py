"""What Celery loads: `celery -A worker.tasks worker -P solo --without-gossip --without-mingle`. Settings by environment."""

from __future__ import annotations

from app.settings import Settings
from worker.member import enrol

app = enrol(Settings())
