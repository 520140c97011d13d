"""A Celery application as in worker.tasks, with the scripted engine in place of the real one."""

from __future__ import annotations

import sys
from pathlib import Path

from app.settings import Settings
from worker.member import enrol

app = enrol(Settings(), command=[sys.executable, str(Path(__file__).with_name("scripted_engine.py"))])
