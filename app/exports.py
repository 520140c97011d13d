"""A finished download in another form, asked for afterwards: a small job of its own, which finds all it needs in the store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app import jobs
from app.errors import Conflict, Unprocessable
from app.leases import engine_step
from app.models import Job, Step, StepState, User
from app.services import Services
from app.storage import room
from app.views.downloads import ExportOut, files_of, forms, under_way
from app.visibility import chosen, of_a_copy
from engine.errors import ErrorReport
from engine.plan import Plan, StepKind
from engine.plan import Step as PlannedStep
from engine.spec import Export


class ExportIn(BaseModel):
    """Which form of which download."""

    model_config = ConfigDict(extra="forbid")

    form: Export = Field(description="As in `exports` of a spec.")
    ipc: int | None = Field(None, ge=1, description="Images per class: the job's own by default, or one of its nested.")


def ask(services: Services, user: User, job_id: str, wanted: ExportIn) -> ExportOut:
    """Have a form written, and ring; or say where it is, when it is written or about to be.

    Raises Conflict for a job without that download, or whose images are gone; Unprocessable, TooMany, NoRoom.
    """
    with services.database.write() as session:
        jobs.lock_user(session, user)
        job = jobs.get(session, user, job_id)
        steps = {step.key: step for step in jobs.steps_of(session, job.id)}
        step = _form(job, steps, wanted)
        if services.store.is_whole(step.key):
            [file] = files_of(job, step, services.store.manifest(step.key))
            return ExportOut(form=wanted.form, ipc=file.ipc, state="ready", job=None, artifact=file)
        at_work = under_way(session, user, [step.key]).get(step.key)
        writer = at_work or _new_job(session, services, user, job, step, list(_needed(job, steps, step, services))).id
    if at_work is None:
        services.bell.ring()  # after the commit
    return ExportOut(form=wanted.form, ipc=step.params["ipc"], state="building", job=writer, artifact=None)


def _form(job: Job, steps: Mapping[str, Step], wanted: ExportIn) -> PlannedStep:
    ipc = wanted.ipc or job.spec["ipc"]
    packages = {step.params["ipc"]: step for step in steps.values() if step.kind == StepKind.PACKAGE}
    if ipc not in packages:
        known = ", ".join(map(str, sorted(packages)))
        raise _refused(f"{job.id} has no download of {ipc} images per class.", f"It has: {known}.", "/ipc")
    if wanted.form == "fkd" and job.spec["labels"]["recipe_only"]:
        message = "fkd files are made of soft labels, and labels.recipe_only keeps none."
        raise _refused(message, "Take another form: train.py of the download makes the labels again.", "/form")
    if packages[ipc].state != StepState.SUCCEEDED:
        raise Conflict(
            f"{job.id} has no download yet.", hint="Ask again when it is done; `exports` of a spec asks before."
        )
    found = forms(packages[ipc], steps).get(wanted.form)
    if found is None:
        raise Conflict(
            f"{job.id} is of an older version of this server.", hint="Run it again with this form among its `exports`."
        )
    return found


def _refused(message: str, hint: str, pointer: str) -> Unprocessable:
    report = ErrorReport(code="export_invalid", message=message, hint=hint, pointer=pointer)
    return Unprocessable(message, hint=hint, errors=[report])


def _needed(job: Job, steps: Mapping[str, Step], step: PlannedStep, services: Services) -> Iterator[PlannedStep]:
    """What the form is made from, which the store must have: nothing is computed for it. Raises Conflict."""
    for key in step.needs.values():
        if not services.store.is_whole(key):
            raise Conflict(
                f"What {job.id} made its download from is no longer in the store.",
                hint="Run the job again with this form among its `exports`; or unpack the zip and convert its images.",
            )
        yield engine_step(steps[key])


def _new_job(
    session: Session, services: Services, user: User, job: Job, step: PlannedStep, needed: list[PlannedStep]
) -> Job:
    settings = services.settings
    jobs.within_quota(session, user, settings.max_queued_per_user)
    room.check(session, services, user, [step])
    return jobs.add(
        session,
        owner=user,
        name=f"{step.params['form']} of {job.name}"[:80],
        spec=jobs.spec_of(job).model_copy(update={"exports": (step.params["form"],)}),
        plan=Plan(steps=(*needed, step), rows=(), package=step.key),
        visibility=chosen(session, user, of_a_copy(user, job), settings.visibility),
    )
