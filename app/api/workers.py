"""Who works, and who is to take no steps."""

from __future__ import annotations

from fastapi import APIRouter

from app import views, workers
from app.deps import AdminDep, ServicesDep, UserDep

router = APIRouter(tags=["workers"])


@router.get("/workers", summary="Workers, the one last heard of first")
def list_workers(services: ServicesDep, user: UserDep) -> list[views.WorkerOut]:
    with services.database.read() as session:
        return views.workers(session, user)


@router.post("/workers/{worker_id}/drain", summary="Let a worker take no steps; the one it has it gives back")
def drain_worker(worker_id: str, services: ServicesDep, admin: AdminDep) -> views.WorkerOut:
    with services.database.write() as session:
        found = views.worker_out(session, workers.drain(session, worker_id, admin))
    services.bell.ring()  # what it gives back is for others
    return found


@router.post("/workers/{worker_id}/resume", summary="Let a drained worker take steps again")
def resume_worker(worker_id: str, services: ServicesDep, admin: AdminDep) -> views.WorkerOut:
    with services.database.write() as session:
        found = views.worker_out(session, workers.resume(session, worker_id, admin))
    services.bell.ring()
    return found
