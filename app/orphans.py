"""What workers that died left behind on this machine: processes to end, leases to take back. Both at once, without waiting."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sqlalchemy import or_, select

from app.db import Database
from app.leases import Lease
from app.machine import kill_leftover
from app.models import Attempt, Step, StepState
from app.reaper import Reaper
from app.shares import LOST

log = logging.getLogger(__name__)


def processes(database: Database, host: str, *, key: str | None = None) -> list[tuple[int, float]]:
    """Engine processes (pid, start) of attempts on this host that nobody saw end; with a key, those of equal steps."""
    query = select(Attempt.pid, Attempt.pid_started).where(
        Attempt.host == host,
        Attempt.pid.is_not(None),
        Attempt.pid_started.is_not(None),
        or_(Attempt.outcome.is_(None), Attempt.outcome == LOST),
    )
    if key is not None:
        query = query.join(Step, Step.id == Attempt.step_id).where(Step.key == key)
    with database.read() as session:
        return [(pid, started) for pid, started in session.execute(query.distinct()) if pid and started is not None]


def kill(database: Database, host: str, *, key: str | None = None, spare: Sequence[int] = ()) -> int:
    """End such processes. Returns how many were still alive."""
    killed = 0
    for pid, started in processes(database, host, key=key):
        if pid not in spare and kill_leftover(pid, started):
            log.warning("engine left by an earlier worker ended", extra={"pid": pid})
            killed += 1
    return killed


def take_back(database: Database, reaper: Reaper, *, worker: str | None = None) -> list[Lease]:
    """Take back every lease at once, or one worker's. The caller knows that no holder lives."""
    with database.write() as session:
        query = select(Step).where(Step.state == StepState.RUNNING)
        rows = session.scalars(query if worker is None else query.where(Step.worker == worker)).all()
        return [lease for row in rows if (lease := reaper.expire(session, row)) is not None]
