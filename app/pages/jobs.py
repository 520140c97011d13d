"""The list of jobs: filters in the address, pages by cursor, and what is done to several at once."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app import auth, controls, jobs, views
from app.deps import ServicesDep, UserDep
from app.errors import ServiceError, Unprocessable
from app.models import Job, JobState, Step, StepState, User
from app.pages.new import PostedDep
from app.pages.render import page
from app.services import Services
from app.storage import trash
from engine.methods import TITLES
from engine.plan import Row
from engine.presets import PRESETS

PAGE = 25
WELCOME = ("demo", "cifar10-small", "cifar100-ipc10-fadrm-paper")  # presets that an empty list offers


COMPARE = "compare"
MOST_AT_ONCE = 100  # jobs that one request changes


def _in_a_transaction(control: Callable[[Session, Job, User], None]) -> Callable[[Services, User, str], None]:
    def act(services: Services, user: User, job_id: str) -> None:
        with services.database.write() as session:
            control(session, jobs.get(session, user, job_id), user)

    return act


# What can be done to several jobs at once: each is a transaction of its own, so that one refusal stops no other.
ACTIONS: dict[str, Callable[[Services, User, str], None]] = {
    "pause": _in_a_transaction(controls.pause),
    "resume": _in_a_transaction(controls.resume),
    "cancel": _in_a_transaction(controls.cancel),
    "delete": trash.delete_job,
}
DONE = {"pause": "paused", "resume": "resumed", "cancel": "cancelled", "delete": "put into the trash"}


class Filters(BaseModel):
    """What the address asks for."""

    q: str = Field("", max_length=80)
    state: JobState | Literal[""] = ""
    owner: str = Field("", max_length=80)
    dataset: str = Field("", max_length=1024)
    method: str = Field("", max_length=40)
    visibility: Literal["", "private", "team", "all"] = ""
    after: views.Cursor = ""

    @property
    def narrows(self) -> bool:
        return any(self.model_dump().values())

    def url(self, after: str = "", **more: Any) -> str:
        """The same list, from another place on."""
        asked = self.model_dump() | {"after": after} | more
        query = urlencode({name: value for name, value in asked.items() if value})
        return f"/jobs?{query}" if query else "/jobs"


class Did(BaseModel):
    """What was just done to several jobs: told in the list that comes next."""

    did: str = Field("", max_length=20)
    ok: int = Field(0, ge=0, le=MOST_AT_ONCE)
    refused: int = Field(0, ge=0, le=MOST_AT_ONCE)

    @property
    def sentence(self) -> str:
        """`3 jobs cancelled; 1 could not be: not in a state for it, or not yours.`"""
        if self.did not in DONE:
            return ""
        told = f"{self.ok} {'job' if self.ok == 1 else 'jobs'} {DONE[self.did]}"
        return told + (f"; {self.refused} could not be: not in a state for it, or not yours." if self.refused else ".")


class Asked(Filters, Did):
    """The whole address of the list."""

    part: bool = False

    def filters(self) -> Filters:
        return Filters.model_validate(self.model_dump(include=set(Filters.model_fields)))


def router() -> APIRouter:
    """/ and /jobs."""
    routes = APIRouter()

    @routes.get("/")
    def home() -> Response:
        return RedirectResponse("/jobs", 307)

    @routes.get("/jobs")
    def job_list(
        request: Request, services: ServicesDep, user: UserDep, asked: Annotated[Asked, Query()]
    ) -> HTMLResponse:
        with services.database.read() as session:
            context = _context(session, user, asked.filters())
        name = "jobs_table.html" if asked.part else "jobs.html"
        return page(request, name, did=asked.sentence, **context)

    @routes.post("/jobs/bulk")
    def bulk(services: ServicesDep, user: UserDep, posted: PostedDep, filters: Annotated[Filters, Query()]) -> Response:
        ids = list(dict.fromkeys(posted.get("id", ())))[:MOST_AT_ONCE]
        action = (posted.get("action") or [""])[-1]
        if action == COMPARE:
            return RedirectResponse("/compare?" + urlencode({"ids": ",".join(ids)}, safe=","), 303)
        if action not in ACTIONS:
            raise Unprocessable(
                f"There is nothing called {action[:80]!r} to do.", hint=f"Choose: {', '.join(ACTIONS)}."
            )
        done = _all(services, auth.may_write(user), ids, action)
        return RedirectResponse(filters.url(filters.after, did=action, ok=done, refused=len(ids) - done), 303)

    return routes


def _all(services: Services, user: User, ids: Sequence[str], action: str) -> int:
    """How many it was done to."""
    done = 0
    for job_id in ids:
        try:
            ACTIONS[action](services, user, job_id)
        except ServiceError:
            continue
        done += 1
    services.bell.ring()  # after the commits
    return done


def _context(session: Session, user: User, filters: Filters) -> dict[str, Any]:
    wanted = views.JobFilter(
        states=[filters.state] if filters.state else [],
        owner=filters.owner,
        text=filters.q,
        dataset=filters.dataset,
        method=filters.method,
        visibility=filters.visibility,
    )
    found = views.page_of_jobs(session, user, wanted, after=filters.after, limit=PAGE)
    return {
        "page": found,
        "best": best_results(session, [job.id for job in found.data]),
        "filters": filters,
        "filtered": filters.narrows,
        "states": list(JobState),
        "methods": TITLES,
        "datasets": views.dataset_names(session, user),
        "first": filters.url(),
        "next": filters.url(found.next_cursor or ""),
        "bulk": filters.url(filters.after).replace("/jobs", "/jobs/bulk", 1),
        "actions": DONE,
        "presets": [PRESETS[name] for name in WELCOME],
        "idempotency_key": secrets.token_hex(16),
    }


def best_results(session: Session, ids: Sequence[str]) -> dict[str, float]:
    """Job -> the best mean accuracy of a row of distilled images, last epoch, %."""
    jobs = session.execute(select(Job.id, Job.rows).where(Job.id.in_(ids))).all()
    rows = {job_id: [Row.model_validate(row) for row in found] for job_id, found in jobs}
    keys = {key for found in rows.values() for row in found for key in row.runs}
    query = select(Step.key, Step.result).where(
        Step.job_id.in_(ids), Step.key.in_(keys), Step.state == StepState.SUCCEEDED
    )
    top1 = {key: result["top1_last_pct"] for key, result in session.execute(query) if result}
    means = {
        job_id: [fmean(values) for row in found if row.subject == "distilled" and (values := _known(top1, row.runs))]
        for job_id, found in rows.items()
    }
    return {job_id: max(found) for job_id, found in means.items() if found}


def _known(top1: dict[str, float], runs: Sequence[str]) -> list[float]:
    return [top1[key] for key in runs if key in top1]
