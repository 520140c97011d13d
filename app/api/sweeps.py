"""Sweeps: plan, create, list, read, cancel, and the table to download."""

from __future__ import annotations

import csv
import io
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from app import sweeps, views
from app.api.jobs import IdempotencyKey
from app.deps import ServicesDep, UserDep, WriterDep
from app.errors import Unprocessable
from app.models import User
from app.services import Services
from app.visibility import Chosen
from engine.errors import ErrorReport

router = APIRouter(tags=["sweeps"])
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would take for the beginning of one


@router.post("/sweeps/plan", summary="How many jobs a sweep makes, and what they cost together; stores nothing")
def plan_sweep(wanted: sweeps.SweepIn, request: Request, services: ServicesDep, user: UserDep) -> sweeps.SweepPlanOut:
    return sweeps.plan_out(services, sweeps.prepare(services, user, wanted, request.app.state.facts), user)


@router.post("/sweeps", status_code=201, summary="Create a sweep: all of its jobs, or none")
def create_sweep(
    wanted: sweeps.SweepIn,
    response: Response,
    services: ServicesDep,
    user: WriterDep,
    idempotency_key: IdempotencyKey = None,
) -> views.SweepOut:
    sweep, is_new = sweeps.submit(services, user, wanted, idempotency_key)
    response.headers["Location"] = views.sweep_urls(sweep.id)["self"]
    if not is_new:
        response.status_code = 200
        response.headers["Idempotent-Replayed"] = "true"
    return _shown(services, user, sweep.id)


@router.get("/sweeps", summary="Sweeps that you may see, newest first")
def list_sweeps(
    request: Request,
    response: Response,
    services: ServicesDep,
    user: UserDep,
    after: Annotated[views.SweepCursor | None, Query(description="`next_cursor` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> views.SweepPage:
    with services.database.read() as session:
        page = views.page_of_sweeps(session, user, after=after, limit=limit)
    if page.next_cursor:
        following = request.url.include_query_params(after=page.next_cursor)
        response.headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    return page


@router.get("/sweeps/{sweep_id}", summary="One sweep: its jobs with their states and scores")
def get_sweep(sweep_id: str, services: ServicesDep, user: UserDep) -> views.SweepOut:
    return _shown(services, user, sweep_id)


class SweepChangeIn(BaseModel):
    """What of a sweep may be changed."""

    model_config = ConfigDict(extra="forbid")

    visibility: Chosen = Field(description="Who sees it and its jobs besides its owner and administrators.")


@router.patch("/sweeps/{sweep_id}", summary="Who sees a sweep and its jobs")
def change_sweep(wanted: SweepChangeIn, sweep_id: str, services: ServicesDep, user: WriterDep) -> views.SweepOut:
    with services.database.write() as session:
        sweeps.show_to(session, sweeps.get(session, user, sweep_id), user, wanted.visibility)
    return _shown(services, user, sweep_id)


@router.post("/sweeps/{sweep_id}/cancel", summary="Cancel every job of a sweep that has not ended")
def cancel_sweep(sweep_id: str, services: ServicesDep, user: WriterDep) -> views.SweepOut:
    sweeps.cancel(services, user, sweep_id)
    return _shown(services, user, sweep_id)


@router.post("/sweeps/{sweep_id}/retry", summary="Try every job of a sweep again that failed or was cancelled")
def retry_sweep(sweep_id: str, services: ServicesDep, user: WriterDep) -> views.SweepOut:
    sweeps.retry(services, user, sweep_id)
    return _shown(services, user, sweep_id)


@router.get("/sweeps/{sweep_id}/table", response_model=views.TableOut, summary="The table of a sweep, as JSON or CSV")
def get_sweep_table(
    sweep_id: str,
    services: ServicesDep,
    user: UserDep,
    student: Annotated[str, Query(max_length=80, description="By default of each job the first.")] = "",
    labels: Annotated[str, Query(max_length=20, description="`soft` or `hard`; by default the first.")] = "",
    format: Literal["json", "csv"] = "json",  # noqa: A002
) -> Response:
    sweep = _shown(services, user, sweep_id)
    for name, value, known in (("student", student, sweep.students), ("labels", labels, sweep.labels)):
        if value and value not in known:
            raise _unknown(name, value, known)
    made = views.table(sweep, student, labels)
    if format == "json":
        return JSONResponse(made.model_dump(mode="json"))
    return Response(
        _csv(made), media_type="text/csv", headers={"Content-Disposition": f'attachment; filename="{sweep_id}.csv"'}
    )


def _unknown(name: str, value: str, known: list[str]) -> Unprocessable:
    message = f"{name} is {value!r}, which no job of the sweep has."
    hint = f"Choose one of {', '.join(known)}." if known else "The jobs of this sweep train no students."
    report = ErrorReport(code="unknown", message=message, hint=hint, details={"parameter": name})
    return Unprocessable(message, hint=hint, errors=[report])


def _csv(made: views.TableOut) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(map(_harmless, made.columns))
    for row in made.rows:
        writer.writerow([_harmless(value) if isinstance(value, str) else value for value in row])
    return text.getvalue()


def _harmless(value: str) -> str:
    """Text that no spreadsheet runs as a formula; numbers stay numbers."""
    try:
        float(value)
    except ValueError:
        return f"'{value}" if value.startswith(FORMULA) else value
    return value


def _shown(services: Services, user: User, sweep_id: str) -> views.SweepOut:
    with services.database.read() as session:
        return views.sweep_out(session, sweeps.get(session, user, sweep_id))
