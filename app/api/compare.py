"""Several jobs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from app import jobs
from app.deps import ServicesDep, UserDep
from app.errors import Unprocessable
from app.models import Job, User
from app.views.compare import MAX_JOBS, CompareOut, compare
from engine.errors import ErrorReport

router = APIRouter(tags=["jobs"])
Ids = Annotated[str, Query(max_length=400, description=f"Ids of two to {MAX_JOBS} jobs, with commas between.")]


@router.get("/compare", summary="Jobs side by side: what differs in their specs, score cards, curves, contact sheets")
def compare_jobs(
    services: ServicesDep,
    user: UserDep,
    ids: Ids,
    max_points: Annotated[int, Query(ge=10, le=2000, description="Of each curve.")] = 400,
) -> CompareOut:
    with services.database.read() as session:
        return compare(session, named(session, user, ids), max_points=max_points)


def named(session: Session, user: User, ids: str) -> Sequence[Job]:
    """The jobs that `a,b,c` names, each once. Raises Unprocessable when they are too few or too many, and NotFound."""
    wanted = list(dict.fromkeys(filter(None, ids.split(","))))
    if not 2 <= len(wanted) <= MAX_JOBS:
        message = f"ids names {len(wanted)} {'job' if len(wanted) == 1 else 'jobs'}: compare two to {MAX_JOBS}."
        report = ErrorReport(code="invalid", message=message, details={"parameter": "ids"})
        raise Unprocessable(message, hint="Choose jobs in the list, then Compare.", errors=[report])
    return [jobs.get(session, user, job_id) for job_id in wanted]
