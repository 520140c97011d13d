"""From what a user sends to a plan: preset and overrides, the data set's real path and facts, the engine's own checks."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from app import datasets, estimates, jobs, problems, sent, weights, workers
from app.errors import TooLarge, Unprocessable
from app.line import latest
from app.models import Job, UploadKind, User
from app.services import Services
from app.storage import room
from app.storage.room import RoomOut
from app.visibility import Chosen, chosen
from engine.datasets import Facts
from engine.errors import ErrorReport
from engine.fields import shallow
from engine.methods import Optimised
from engine.plan import Plan, Step, check, plan
from engine.presets import PRESETS
from engine.sources import Upload
from engine.spec import TORCHVISION, TRAINED, UPLOADED, JobSpec

MOST_NAME = 80  # characters


def printable(name: str) -> str:
    """A name as it is kept. It may be longer than what was sent: some characters are several in NFC. Raises ValueError."""
    name = unicodedata.normalize("NFC", name).strip()
    if not name:
        raise ValueError("a name needs at least one character")
    if len(name) > MOST_NAME:
        raise ValueError(f"a name has at most {MOST_NAME} characters, and this one {len(name)}, written in NFC")
    if any(unicodedata.category(character).startswith("C") for character in name):
        raise ValueError("a name holds no control characters")
    return name


Name = Annotated[str, Field(max_length=MOST_NAME), AfterValidator(printable)]
NAME: TypeAdapter[str] = TypeAdapter(Name)


class JobIn(BaseModel):
    """A job to be planned or done: a whole spec, or a preset and what to change in it."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = Field(None, description="For people. By default what is distilled, and how.")
    spec: JobSpec | None = None
    preset: str | None = Field(None, description="Name of a preset (GET /presets).")
    overrides: Annotated[dict[str, Any], AfterValidator(shallow)] | None = Field(
        None,
        description="Merged into the preset's spec (RFC 7396); naming another method or source replaces that part.",
    )
    visibility: Chosen | None = Field(
        None, description="Who sees it besides you and administrators; by default as the server is set."
    )

    @model_validator(mode="after")
    def _spec_or_preset(self) -> Self:
        if (self.spec is None) == (self.preset is None):
            raise ValueError("send either spec or preset")
        if self.spec is not None and self.overrides is not None:
            raise ValueError("overrides belong to a preset: write them into the spec")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A request that can be carried out."""

    name: str
    spec: JobSpec
    facts: Facts
    plan: Plan


def prepare(services: Services, user: User, wanted: JobIn, cache: datasets.FactsCache | None = None) -> Planned:
    """Plan what was asked for. Raises Unprocessable with pointers into the body. cache: facts may be some seconds old."""
    return prepare_spec(services, user, spec_of(wanted), wanted.name, cache)


def spec_of(wanted: JobIn) -> JobSpec:
    """The spec that was sent, or the preset's with what was changed in it. Raises Unprocessable."""
    return wanted.spec if wanted.spec is not None else _from_preset(wanted.preset or "", wanted.overrides or {})


def prepare_spec(
    services: Services,
    user: User,
    spec: JobSpec,
    name: str | None = None,
    cache: datasets.FactsCache | None = None,
) -> Planned:
    """Plan a spec of a user's. Raises Unprocessable with pointers into `/spec`."""
    _refuse_large(spec, services.settings.max_spec_bytes)
    roots, uploads = services.settings.data_roots, services.store.uploads
    spec = datasets.within_roots(spec, roots)
    _refuse_weights_outside(spec, roots)
    with services.database.read() as session:
        unseen = list(jobs.unseen(session, user, spec))
    if unseen:
        raise datasets.refused(*unseen)
    for upload_id in sent.uploads_of(spec.model_dump(mode="json", include={"dataset", "teachers"})):
        services.store.upload(upload_id)  # at hand, wherever it was sent to
    facts = cache.get(spec.dataset, roots, uploads) if cache else datasets.facts_of(spec.dataset, roots, uploads)
    with services.database.read() as session:
        if isinstance(spec.dataset, Upload):
            row = sent.known(session, user, spec.dataset.id, UploadKind.IMAGES)
            facts = replace(facts, title=sent.label_of(session, user, row).title)
        reports = [*check(spec, facts), *weights.unfit(session, spec, facts)]
    if reports:
        raise datasets.refused(*reports)
    return Planned(name=name or default_name(spec, facts), spec=spec, facts=facts, plan=plan(spec, facts))


def _refuse_large(spec: JobSpec, most: int) -> None:
    size_bytes = len(spec.model_dump_json())
    if size_bytes > most:
        raise TooLarge(
            f"The spec has {size_bytes:,} bytes, and the limit is {most:,}.",
            hint="Name fewer classes or students, or have an administrator raise FADRM_MAX_SPEC_BYTES.",
        )


def _refuse_weights_outside(spec: JobSpec, roots: Iterable[Path]) -> None:
    """Raises Unprocessable when a teacher's weights are to come from a file that is not below one of the roots."""
    allowed = [root.resolve() for root in roots]
    for index, teacher in enumerate(spec.teachers):
        given = teacher.weights
        if given in (TRAINED, TORCHVISION, UPLOADED):
            continue
        if "\0" in given or not any(Path(os.path.realpath(given)).is_relative_to(root) for root in allowed):
            report = ErrorReport(
                code="weights_invalid",
                message=f"{given!r} is not a file under a folder that this server allows.",
                hint=f"Allowed roots: {', '.join(map(str, allowed)) or 'none'}; an administrator sets FADRM_DATA_ROOTS.",
                pointer=f"/teachers/{index}/weights",
            )
            raise datasets.refused(report)


def default_name(spec: JobSpec, facts: Facts) -> str:
    """`Handwritten digits (scikit-learn), 10 images per class, fadrm`."""
    images = "1 image" if spec.ipc == 1 else f"{spec.ipc} images"
    tail = f", {images} per class, {spec.method.method}"
    title = "".join(filter(str.isprintable, unicodedata.normalize("NFC", facts.title)))
    return printable(title[: MOST_NAME - len(tail)] + tail)


def _from_preset(name: str, overrides: dict[str, Any]) -> JobSpec:
    preset = PRESETS.get(name)
    if preset is None:
        message = f"There is no preset {name[:80]!r}."
        near = get_close_matches(name[:80], PRESETS, n=3, cutoff=0.5) or ["demo"]
        hint = f"Did you mean {' or '.join(near)}? GET /api/v1/presets lists all {len(PRESETS)}."
        raise Unprocessable(
            message, hint=hint, errors=[ErrorReport(code="unknown_preset", message=message, pointer="/preset")]
        )
    merged = merged_with(preset.spec.model_dump(mode="json"), overrides)
    try:
        return JobSpec.model_validate(merged)
    except ValidationError as error:
        raise problems.invalid(error.errors(), merged, prefix="/overrides") from error


def merged_with(base: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396); a part that says another `method` or `source` is put in the place of the old one."""
    if not isinstance(patch, dict) or not isinstance(base, dict):
        return patch
    if any(
        tag in patch and patch[tag] != base.get(tag) for tag in ("method", "source") if isinstance(base.get(tag), str)
    ):
        return patch
    kept = {name: value for name, value in base.items() if not (name in patch and patch[name] is None)}
    return kept | {name: merged_with(base.get(name), value) for name, value in patch.items() if value is not None}


class PlannedStep(BaseModel):
    """A step that the job would have."""

    kind: str
    title: str
    key: str
    cached: bool = Field(description="The store holds it already: it takes no time.")
    flop: float
    size_bytes: int


class PlannedRow(BaseModel):
    """A line that the score card would have."""

    subject: str
    student: str
    labels: str
    runs: int


class Estimate(BaseModel):
    """What the steps that are not cached cost."""

    flop: float
    size_bytes: int
    seconds: dict[str, float] = Field(description="By device, on one worker. Rough.")
    host_bytes: int = Field(description="The most that the process of one of them takes of a machine’s memory.")
    device_bytes: int = Field(description="The most that one of them takes of a GPU, or of the CPU’s memory besides.")

    @classmethod
    def of(cls, left: Collection[Step]) -> Self:
        """Of these steps."""
        return cls(
            flop=sum(step.flop for step in left),
            size_bytes=sum(step.size_bytes for step in left),
            seconds=estimates.seconds(left),
            host_bytes=max((step.host_bytes for step in left), default=0),
            device_bytes=max((step.device_bytes for step in left), default=0),
        )


class PlanOut(BaseModel):
    """A dry run: nothing is stored."""

    name: str
    spec: JobSpec = Field(description="Complete: with every default, and what depends on the data set filled in.")
    dataset: dict[str, Any]
    steps: list[PlannedStep]
    rows: list[PlannedRow]
    estimate: Estimate
    room: RoomOut
    starts_in_minutes: int | None = Field(
        description="About, were it submitted now; null when no worker is connected, or nobody can know."
    )
    warnings: list[str]


def plan_out(services: Services, planned: Planned, user: User) -> PlanOut:
    """A plan as it reads for a user."""
    with services.database.read() as session:
        found = room.room_for(session, services, user, planned.plan.steps)
        waits_s = latest(session).another_starts_in_s(user.id, len(workers.online(session)))
    cached = {step.key: services.store.is_whole(step.key) for step in planned.plan.steps}
    left = [step for step in planned.plan.steps if not cached[step.key]]
    starts_s = waits_s if left else 0.0  # what the store has waits for no worker
    facts = planned.facts
    shown = ("kind", "title", "key", "flop", "size_bytes")
    return PlanOut(
        name=planned.name,
        spec=_complete(planned.spec, facts),
        dataset={
            "title": facts.title,
            "classes": len(facts.classes),
            "train_images": facts.train_images,
            "test_images": facts.test_images,
            "resolution": facts.resolution,
        },
        steps=[
            PlannedStep(cached=cached[step.key], **{name: getattr(step, name) for name in shown})
            for step in planned.plan.steps
        ],
        rows=[
            PlannedRow(subject=row.subject, student=row.student, labels=row.labels, runs=len(row.runs))
            for row in planned.plan.rows
        ],
        estimate=Estimate.of(left),
        room=found,
        starts_in_minutes=None if starts_s is None else round(starts_s / 60),
        warnings=[*warnings(planned), *room.lack(found)],
    )


def _complete(spec: JobSpec, facts: Facts) -> JobSpec:
    if not isinstance(spec.method, Optimised):
        return spec
    return spec.model_copy(update={"method": spec.method.resolved(facts.resolution)})


def warnings(planned: Planned) -> list[str]:
    """What can be done, and is hardly wanted."""
    spec, found = planned.spec, []
    if not spec.evaluation.students:
        found.append("No student is named: there will be no score card.")
    if spec.evaluation.students and spec.evaluation.runs == 1:
        found.append("One run per row tells nothing of the spread: set evaluation.runs to 3 or more.")
    if spec.evaluation.students and not spec.evaluation.baselines:
        found.append("Without baselines the accuracies have nothing to stand beside.")
    if spec.ipc >= min(planned.facts.train_per_class):
        found.append("There are as many synthetic images as real ones in the smallest class: nothing is distilled.")
    return found


def submit(
    services: Services,
    owner: User,
    spec: JobSpec,
    name: str | None,
    idempotency_key: str | None = None,
    visibility: str | None = None,
) -> tuple[Job, bool]:
    """Accept a job and ring; whether it is new. For the API and for the pages' form alike.

    The key is looked up first: what a job was planned from may be gone when its request comes a second time.
    """
    with services.database.read() as session:
        known = jobs.repeated(session, owner, datasets.with_real_path(spec), idempotency_key, visibility)
    if known is not None:
        return known, False
    planned = prepare_spec(services, owner, spec, name)
    with services.database.write() as session:
        jobs.lock_user(session, owner)
        room.check(session, services, owner, planned.plan.steps)
        job, is_new = jobs.create(
            session,
            owner=owner,
            name=planned.name,
            spec=planned.spec,
            plan=planned.plan,
            idempotency_key=idempotency_key,
            max_unfinished=services.settings.max_queued_per_user,
            visibility=chosen(session, owner, visibility, services.settings.visibility),
        )
    if is_new:
        services.bell.ring()  # after the commit: no worker may look for a row that is not there yet
    return job, is_new
