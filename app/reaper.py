"""Leases that nobody renews are taken away."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.leases import Lease, LeaseLost, crash, engine_step
from app.models import Job, Step, StepState
from app.settings import DEFAULTS
from app.shares import LOST
from engine.errors import ErrorReport


@dataclass(slots=True)
class Reaper:
    """Takes away leases that nobody renews, by its own monotonic clock: no clock that can jump is asked.

    Any number of reapers may watch: who is first changes the row, and the others match none.
    """

    lease_s: float
    max_crashes: int = DEFAULTS.max_crashes
    max_attempts: int = DEFAULTS.max_attempts
    _seen: dict[tuple[int, int, int], float] | None = None

    def sweep(self, session: Session, now: float) -> list[Lease]:
        """Look once (call every few seconds). now: monotonic seconds. Returns the leases taken away."""
        running = select(Step).where(Step.state == StepState.RUNNING)
        rows = session.scalars(
            running.order_by(Step.job_id, Step.id)
        ).all()  # jobs in one order: reapers never deadlock
        seen = self._seen or {}
        self._seen = {(row.id, row.fence, row.beat): seen.get((row.id, row.fence, row.beat), now) for row in rows}
        stale = [row for row in rows if now - self._seen[row.id, row.fence, row.beat] >= self.lease_s]
        # A job that somebody holds just now has its turn at the next look: one who froze must not stop all reaping.
        jobs = select(Job.id).where(Job.id.in_({row.job_id for row in stale})).order_by(Job.id)
        free = set(session.scalars(jobs.with_for_update(skip_locked=True))) if stale else set()
        expired = [self.expire(session, row) for row in stale if row.job_id in free]
        return [lease for lease in expired if lease is not None]

    def expire(self, session: Session, row: Step) -> Lease | None:
        """Take one lease away; None when its holder was heard of meanwhile."""
        lease = Lease(step_id=row.id, job_id=row.job_id, fence=row.fence, step=engine_step(row))
        error = ErrorReport(
            code="worker_lost",
            message=f"The worker {row.worker} was not heard of while it worked on: {row.title}.",
            hint="Look at the worker's log and at the machine's memory, then try the job again: finished steps are kept.",
        )
        try:
            crash(
                session,
                lease,
                error,
                outcome=LOST,
                beat=row.beat,
                max_crashes=self.max_crashes,
                max_attempts=self.max_attempts,
            )
        except LeaseLost:
            return None
        return lease
