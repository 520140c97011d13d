"""What is deleted, restored and removed truly; what the store holds, and what the janitor would free."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from app import jobs, sweeps, views
from app.deps import AdminDep, ServicesDep, UserDep, WriterDep
from app.storage import janitor, trash
from app.storage.usage import ItemOut, KindOut, UsageOut, item_out, summed, usage
from app.views.out import Out

router = APIRouter(tags=["storage"])
Purge = Annotated[
    bool, Query(description="Remove it truly, now, also out of the trash; for administrators. It does not come back.")
]


class CleanedOut(Out):
    """What the janitor removed."""

    kinds: list[KindOut]
    items: list[ItemOut]


@router.get("/system/storage", summary="What the store holds by kind, user and job, and what could be freed")
def get_storage(services: ServicesDep, user: UserDep) -> UsageOut:
    return usage(services, user)


@router.post("/system/storage/clean", summary="Let the janitor remove now what has served its time, a round of it")
def clean_storage(services: ServicesDep, admin: AdminDep) -> CleanedOut:
    gone = janitor.clean_for(services, admin)
    return CleanedOut(kinds=summed(gone), items=list(map(item_out, gone)))


@router.get("/trash", summary="Deleted jobs and sweeps that you may see, the last deleted first")
def list_trash(services: ServicesDep, user: UserDep) -> list[trash.DeletedOut]:
    return trash.listed(services, user)


@router.delete("/jobs/{job_id}", status_code=204, summary="Put a job that has ended into the trash")
def delete_job(job_id: str, services: ServicesDep, user: WriterDep, purge: Purge = False) -> None:
    trash.delete_job(services, user, job_id, purge=purge)


@router.post("/jobs/{job_id}/restore", summary="Take a job out of the trash")
def restore_job(job_id: str, services: ServicesDep, user: WriterDep) -> views.JobOut:
    trash.restore_job(services, user, job_id)
    with services.database.read() as session:
        return views.job_out(session, jobs.get(session, user, job_id))


@router.delete(
    "/sweeps/{sweep_id}", status_code=204, summary="Put a sweep and its jobs, which have all ended, into the trash"
)
def delete_sweep(sweep_id: str, services: ServicesDep, user: WriterDep, purge: Purge = False) -> None:
    trash.delete_sweep(services, user, sweep_id, purge=purge)


@router.post("/sweeps/{sweep_id}/restore", summary="Take a sweep and its jobs out of the trash")
def restore_sweep(sweep_id: str, services: ServicesDep, user: WriterDep) -> views.SweepOut:
    trash.restore_sweep(services, user, sweep_id)
    with services.database.read() as session:
        return views.sweep_out(session, sweeps.get(session, user, sweep_id))
