"""What is deleted, restored and removed truly; what the store holds, and what the janitor would free."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy import select

from app import jobs, sweeps, views
from app.deps import ServicesDep, UserDep, WriterDep
from app.models import Job, Sweep, User
from app.storage import trash
from app.views.out import Out

router = APIRouter(tags=["storage"])
Purge = Annotated[
    bool, Query(description="Remove it truly, now, also out of the trash; for administrators. It does not come back.")
]


class DeletedOut(Out):
    """A job or a sweep in the trash."""

    kind: Literal["job", "sweep"]
    id: str
    name: str
    owner: str
    deleted_by: str | None
    deleted_at: datetime
    removed_at: datetime | None = Field(description="When it is removed truly; null: never by itself.")


@router.get("/trash", summary="Deleted jobs and sweeps that you may see, the last deleted first")
def list_trash(services: ServicesDep, user: UserDep) -> list[DeletedOut]:
    days = services.settings.keep_trash_days
    with services.database.read() as session:
        names = dict(session.execute(select(User.id, User.name)).all())
        found: list[Job | Sweep] = [
            *(job for job in session.scalars(trash.visible(user, Job)) if job.sweep_id is None),
            *session.scalars(trash.visible(user, Sweep)),
        ]
    return sorted((_deleted(thing, names, days) for thing in found), key=lambda one: one.deleted_at, reverse=True)


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


def _deleted(thing: Job | Sweep, names: dict[str, str], days: float) -> DeletedOut:
    assert thing.deleted_at is not None
    return DeletedOut(
        kind="sweep" if isinstance(thing, Sweep) else "job",
        id=thing.id,
        name=thing.name,
        owner=names[thing.owner_id],
        deleted_by=thing.deleted_by,
        deleted_at=thing.deleted_at,
        removed_at=thing.deleted_at + timedelta(days=days) if days else None,
    )
