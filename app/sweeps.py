"""Sweeps: one request, many jobs. All of them are checked before one is stored; equal steps find each other by their keys."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field, TypeAdapter
from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from app import audit, controls, jobs, planning, visibility
from app.cells import MAX_AXES, TITLE, Axis, Cell, Complaint, blamed, cells, check_axes, refusal, spec_of, told_once
from app.datasets import FactsCache
from app.errors import Conflict, NotFound, Unprocessable
from app.ids import new_id
from app.models import TERMINAL_JOB_STATES, Job, JobState, Sweep, User, Visibility, utc_now
from app.planning import MOST_NAME, Estimate, JobIn
from app.services import Services
from app.settings import DEFAULTS
from app.storage import room
from app.storage.room import RoomOut
from engine.errors import ErrorReport
from engine.spec import JobSpec, sha256_of

AXES = TypeAdapter(tuple[Axis, ...])


class SweepIn(JobIn):
    """Many jobs to be planned or done: a base, as for a job, and what varies."""

    axes: list[Axis] = Field(min_length=1, max_length=MAX_AXES, description="What varies, each by itself.")
    mode: Literal["product"] = Field("product", description="Every combination of the axes is a job.")

    def digest(self) -> str:
        """SHA-256 of what decides the jobs; the name does not."""
        base = planning.spec_of(self).model_dump(mode="json")
        return sha256_of({"spec": base, "axes": [axis.model_dump(mode="json") for axis in self.axes]})


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSweep:
    """A request that can be carried out, whole."""

    name: str
    spec: JobSpec
    axes: tuple[Axis, ...]
    sha256: str
    cells: tuple[tuple[Cell, planning.Planned], ...]


def prepare(services: Services, user: User, wanted: SweepIn, cache: FactsCache | None = None) -> PlannedSweep:
    """Plan every job. Raises Unprocessable with all that is wrong in any of them, pointing into the request."""
    base, facts = planning.spec_of(wanted), cache or FactsCache()
    check_axes(wanted.axes, services.settings.max_jobs_per_sweep)
    name = wanted.name or f"Sweep of {', '.join(axis.name for axis in wanted.axes)}"[:MOST_NAME]
    found: list[tuple[Cell, planning.Planned]] = []
    wrong: list[Complaint] = []
    count = 0
    for cell in cells(base, wanted.axes):
        count += 1
        if isinstance(cell, Complaint):
            wrong.append(cell)
            continue
        try:
            title = _job_name(name, cell)
            found.append((cell, planning.prepare_spec(services, user, spec_of(cell), title, facts)))
        except Unprocessable as error:
            wrong += blamed(error, cell, wanted.axes)
    wrong += _twins(found)
    if wrong:
        raise refusal(told_once(wrong, count))
    return PlannedSweep(name=name, spec=base, axes=tuple(wanted.axes), sha256=wanted.digest(), cells=tuple(found))


def _job_name(sweep: str, cell: Cell) -> str:
    """`Merge ratio: alpha 0.5, method FADRM+`, the sweep's part cut where it must be."""
    tail = f": {cell.title}"
    if len(tail) >= MOST_NAME:
        return cell.title[:MOST_NAME]
    return sweep[: max(MOST_NAME - len(tail), TITLE // 2)].rstrip() + tail


def _twins(found: list[tuple[Cell, planning.Planned]]) -> list[Complaint]:
    """Cells that are the same job as an earlier one."""
    first: dict[str, Cell] = {}
    twins = []
    for cell, planned in found:
        other = first.setdefault(planned.spec.digest(), cell)
        if other is not cell:
            message = f"This is the same job as the cell {other.title}."
            hint = "Leave out a value that changes nothing, or an axis that another one overrides."
            report = ErrorReport(code="duplicate", message=message, hint=hint, pointer="/axes")
            twins.append(Complaint(cell=cell, report=report))
    return twins


class PlannedJob(BaseModel):
    """One job that the sweep would make."""

    name: str
    values: dict[str, str] = Field(description="Axis -> title of its value.")
    steps: int
    new_steps: int = Field(description="Those that neither the store nor an earlier job of the sweep has.")


class SweepPlanOut(BaseModel):
    """A dry run: nothing is stored."""

    name: str
    jobs: list[PlannedJob]
    steps: int = Field(description="Of all jobs, each counted once.")
    shared: int = Field(description="How many steps more it would be if the jobs shared none.")
    cached: int = Field(description="Steps that the store holds already.")
    estimate: Estimate = Field(description="Of the steps that are left, each counted once.")
    room: RoomOut
    warnings: list[str]


def plan_out(services: Services, planned: PlannedSweep, user: User) -> SweepPlanOut:
    """A plan as it reads for a user."""
    steps = {step.key: step for _, one in planned.cells for step in one.plan.steps}
    cached = {key for key in steps if services.store.is_whole(key)}
    left = [step for key, step in steps.items() if key not in cached]
    with services.database.read() as session:
        found = room.room_for(session, services, user, steps.values())
    told = dict.fromkeys(warning for _, one in planned.cells for warning in planning.warnings(one))
    seen, listed = set(cached), []
    for cell, one in planned.cells:
        new = {step.key for step in one.plan.steps} - seen
        seen |= new
        values = {axis.name: axis.titles[place] for axis, place in zip(planned.axes, cell.at, strict=True)}
        listed.append(PlannedJob(name=one.name, values=values, steps=len(one.plan.steps), new_steps=len(new)))
    return SweepPlanOut(
        name=planned.name,
        jobs=listed,
        steps=len(steps),
        shared=sum(job.steps for job in listed) - len(steps),
        cached=len(cached),
        estimate=Estimate.of(left),
        room=found,
        warnings=[*told, *room.lack(found)],
    )


def submit(services: Services, owner: User, wanted: SweepIn, idempotency_key: str | None = None) -> tuple[Sweep, bool]:
    """Accept a sweep, all of its jobs or none, and ring; whether it is new.

    A known key is answered before anything is planned: also when its data could not be planned any more.
    """
    with services.database.read() as session:
        known = with_key(session, owner, idempotency_key, wanted.digest(), wanted.visibility)
    if known is not None:
        return known, False
    planned, settings = prepare(services, owner, wanted), services.settings
    steps = {step.key: step for _, one in planned.cells for step in one.plan.steps}
    with services.database.write() as session:
        jobs.lock_user(session, owner)
        room.check(session, services, owner, steps.values())
        shown_to = visibility.chosen(session, owner, wanted.visibility, settings.visibility)
        more: dict[str, Any] = {"idempotency_key": idempotency_key, "shown_to": shown_to}
        sweep, is_new = create(session, owner, planned, max_unfinished=settings.max_queued_per_user, **more)
    if is_new:
        services.bell.ring()  # after the commit: no worker may look for a row that is not there yet
    return sweep, is_new


def create(
    session: Session,
    owner: User,
    planned: PlannedSweep,
    *,
    idempotency_key: str | None = None,
    max_unfinished: int = DEFAULTS.max_queued_per_user,
    shown_to: str = Visibility.PRIVATE,
) -> tuple[Sweep, bool]:
    """Write a sweep and its jobs down. The same idempotency key gives the same sweep back."""
    jobs.lock_user(session, owner)
    known = with_key(session, owner, idempotency_key, planned.sha256, shown_to)
    if known is not None:
        return known, False
    jobs.within_quota(session, owner, max_unfinished)
    sweep = Sweep(
        id=new_id("swp"),
        owner_id=owner.id,
        name=planned.name,
        spec=planned.spec.model_dump(mode="json"),
        axes=[axis.model_dump(mode="json") for axis in planned.axes],
        request_sha256=planned.sha256,
        idempotency_key=idempotency_key,
        visibility=shown_to,
        created_at=utc_now(),
    )
    session.add(sweep)
    session.flush()
    for cell, one in planned.cells:
        place: dict[str, Any] = {"sweep_id": sweep.id, "cell": list(cell.at), "visibility": shown_to}
        jobs.may_use(session, owner, one.spec)
        job = jobs.add(session, owner=owner, name=one.name, spec=one.spec, plan=one.plan, **place)
        session.expunge(job)  # else every later update looks through all that the session knows
    return sweep, True


def with_key(
    session: Session, owner: User, idempotency_key: str | None, sha256: str, shown_to: str | None = None
) -> Sweep | None:
    """The sweep that this key made. Raises Unprocessable when it was another request, or more people see it than should."""
    if idempotency_key is None:
        return None
    known = session.scalar(select(Sweep).where(Sweep.owner_id == owner.id, Sweep.idempotency_key == idempotency_key))
    if known is not None and known.deleted_at is not None:
        raise Conflict(
            f"This Idempotency-Key was used before, for {known.id}, which was deleted.",
            hint="Restore that sweep, or send a new Idempotency-Key.",
        )
    if known is not None and known.request_sha256 != sha256:
        raise Unprocessable(
            f"This Idempotency-Key was used before, for {known.id}, with another request.",
            hint="Send a new Idempotency-Key with every new sweep.",
        )
    if known is not None:
        visibility.refuse_wider(known, shown_to)
    return known


def visible_to(user: User) -> Select[Sweep]:
    """The sweeps that a user may see; those in the trash are not there."""
    return select(Sweep).where(visibility.visible_to(user, Sweep), Sweep.deleted_at.is_(None))


def get(session: Session, user: User, sweep_id: str) -> Sweep:
    """A sweep that the user may see. Raises NotFound, also for a foreign one."""
    sweep = session.scalar(visible_to(user).where(Sweep.id == sweep_id))
    if sweep is None:
        raise NotFound(f"There is no sweep {sweep_id}.", hint="Look at the list of sweeps for its id.")
    return sweep


def axes_of(sweep: Sweep) -> tuple[Axis, ...]:
    """What varies in a sweep."""
    return AXES.validate_python(sweep.axes)


def values_of(axes: tuple[Axis, ...], job: Job) -> dict[str, str]:
    """Axis -> title of the value that this job of the sweep has."""
    return {axis.name: axis.titles[place] for axis, place in zip(axes, job.cell or (), strict=True)}


def jobs_of(session: Session, sweep: Sweep) -> list[Job]:
    """Its jobs in the order of the axes, the last axis the fastest."""
    return sorted(session.scalars(select(Job).where(Job.sweep_id == sweep.id)), key=lambda job: job.cell or [])


def show_to(session: Session, sweep: Sweep, by: User, wanted: str) -> None:
    """Let a sweep and its jobs be seen by nobody else, the owner's teams, or everybody. Raises Forbidden."""
    visibility.may_change(by, sweep)
    if wanted == sweep.visibility:
        return
    audit.note(session, by, "sweep.visibility", sweep.id, was=sweep.visibility, now=wanted)
    sweep.visibility = Visibility(wanted)
    session.execute(update(Job).where(Job.sweep_id == sweep.id).values(visibility=wanted))


def cancel(services: Services, user: User, sweep_id: str) -> None:
    """Ask for the end of every job that has not ended, one transaction each: others get their turn in between."""
    with services.database.read() as session:
        sweep = get(session, user, sweep_id)
        visibility.may_change(user, sweep)
        states = dict(session.execute(select(Job.id, Job.state).where(Job.sweep_id == sweep.id).order_by(Job.id)).all())
    if set(states.values()) == {JobState.CANCELLED}:
        return
    left = [job_id for job_id, state in states.items() if state not in TERMINAL_JOB_STATES]
    if not left:
        raise Conflict(f"All jobs of {sweep_id} have ended already.", hint="A finished sweep cannot be cancelled.")
    for job_id in left:
        # One that ended in the meantime needs no end.
        with suppress(Conflict), services.database.write() as session:
            controls.cancel(session, jobs.get(session, user, job_id), user)


def retry(services: Services, user: User, sweep_id: str) -> None:
    """Try every job again that failed or was cancelled, one transaction each; their whole steps stay."""
    with services.database.read() as session:
        sweep = get(session, user, sweep_id)
        visibility.may_change(user, sweep)
        wanted = select(Job.id).where(Job.sweep_id == sweep.id, Job.state.in_((JobState.FAILED, JobState.CANCELLED)))
        left = list(session.scalars(wanted.order_by(Job.id)))
    if not left:
        raise Conflict(f"No job of {sweep_id} has failed or was cancelled.", hint="There is nothing to try again.")
    refused = None
    for job_id in left:
        try:
            controls.retry_now(services, user, job_id)
        except Conflict:
            pass  # one that somebody tries again in the meantime needs nothing
        except Unprocessable as error:  # what it is made from is gone: the others go on
            refused = error
    if refused is not None:
        raise refused
