"""The rules of workers: who is there, who is to take no steps, and why none of them takes a step. Functions of a session."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import audit
from app.errors import NotFound
from app.models import Step, User, Worker, utc_now

ONLINE_S = 30  # a worker that was not heard of for so long is taken for gone
GIB = 2**30


def online(session: Session) -> list[Worker]:
    """Workers that were heard of lately."""
    since = utc_now() - timedelta(seconds=ONLINE_S)
    return list(session.scalars(select(Worker).where(Worker.seen_at >= since).order_by(Worker.id)))


def drain(session: Session, worker_id: str, user: User) -> Worker:
    """Let a worker take no steps until it is resumed, or restarted; the one it has it gives back, with a checkpoint."""
    worker = _get(session, worker_id)
    if worker.draining_by is None:
        worker.draining_by = user.name
        audit.note(session, user, "worker.drain", worker_id)
    return worker


def resume(session: Session, worker_id: str, user: User) -> Worker:
    """Let it take steps again."""
    worker = _get(session, worker_id)
    if worker.draining_by is not None:
        worker.draining_by = None
        audit.note(session, user, "worker.resume", worker_id)
    return worker


def _get(session: Session, worker_id: str) -> Worker:
    worker = session.get(Worker, worker_id)
    if worker is None:
        raise NotFound(f"There is no worker {worker_id}.", hint="GET /api/v1/workers lists them.")
    return worker


def obstacle(step: Step, there: Sequence[Worker]) -> str:
    """Why no worker that is there can take this step, in words; empty where one can. `app.claims` is what decides."""
    if not there:
        return "no worker is connected"
    ready = [worker for worker in there if worker.draining_by is None]
    if not ready:
        names = sorted({worker.draining_by for worker in there if worker.draining_by})
        return f"every worker is being drained, as {' and '.join(names)} asked"
    if all(worker.refuses for worker in ready):
        return ready[0].refuses or ""
    willing = [worker for worker in ready if not worker.refuses]
    free = [worker for worker in willing if not worker.strangers]
    if not free:
        stranger = (willing[0].strangers or [{}])[0]
        return (
            f"other programs compute on the GPU of every worker ({stranger.get('name')}, process {stranger.get('pid')})"
        )
    return "" if any(_has(worker, step) for worker in free) else _too_large(step, free)


def _too_large(step: Step, there: Sequence[Worker]) -> str:
    on_device, on_host = step.device_bytes or 0, step.host_bytes or 0
    gpus = [worker for worker in there if worker.device_total_bytes]
    if gpus:
        most = max(worker.device_total_bytes or 0 for worker in gpus)
        free = max(worker.device_free_bytes or 0 for worker in gpus)
        taken, where = on_device, "on a GPU"
    else:
        most = max(worker.host_total_bytes or 0 for worker in there)
        free = max(worker.host_free_bytes or 0 for worker in there)
        taken, where = on_device + on_host, "of memory"
    asked = f"“{step.title}” takes about {_gib(taken)} {where}"
    if taken > most:
        return f"no connected worker is large enough: {asked}, and the largest has {_gib(most)}"
    if taken > free:
        return f"not enough memory is free: {asked}, and at most {_gib(free)} are free"
    return f"not enough memory is free: {asked}, and about {_gib(on_host)} of the machine’s own"


def _has(worker: Worker, step: Step) -> bool:
    """Whether a step fits, as far as is known."""
    host, device = step.host_bytes or 0, step.device_bytes or 0
    if worker.device_total_bytes:
        return host <= _known(worker.host_free_bytes) and device <= _known(worker.device_free_bytes)
    return host + device <= _known(worker.host_free_bytes)


def _known(size_bytes: int | None) -> float:
    return float("inf") if size_bytes is None else size_bytes


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / GIB:.0f} GB" if size_bytes >= 10 * GIB else f"{size_bytes / GIB:.1f} GB"
