"""What can be downloaded of a job: a zip file for each number of images per class, and its further forms.

What a form is made from says its key: a job has also those forms that were asked for later, by whomever.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Literal, get_args
from urllib.parse import quote

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.jobs import steps_of, visible_to
from app.leases import engine_step
from app.models import TERMINAL_JOB_STATES, Job, Step, StepState, StoredStep, User
from app.storage.stored import DOWNLOADS
from app.views.out import Out
from engine.plan import Step as PlannedStep
from engine.plan import StepKind, another_form
from engine.spec import Export
from engine.store import Manifest, Store

PACKAGE = "package"  # the form of a download that explains itself


class ArtifactOut(Out):
    """A file to download."""

    name: str
    ipc: int = Field(description="Images per class that are in it.")
    form: str = Field(description="package: the zip with labels, card and train.py; else as in exports of the spec.")
    size_bytes: int
    sha256: str
    step: str = Field(description="Key of the step that wrote it.")
    url: str


class ExportOut(Out):
    """A download in another form, asked for after the job."""

    form: Export
    ipc: int = Field(description="Images per class that are in it.")
    state: Literal["building", "ready"]
    job: str | None = Field(description="The job that writes it; null when it is written.")
    artifact: ArtifactOut | None = Field(description="The file, when it is written.")


class ArtifactsOut(Out):
    """The files of a job, as far as they are written: the largest ipc first, and of each the package first."""

    ready: bool = Field(description="Whether all of them are that the job was to write.")
    finished_at: datetime | None
    data: list[ArtifactOut]
    building: list[ExportOut] = Field(description="Forms that were asked for later, and are being written.")


def artifacts(session: Session, store: Store, job: Job, user: User | None = None) -> ArtifactsOut:
    """What can be downloaded: the files of all steps that write downloads, once these are whole.

    user: who is told which jobs write more; nobody is, where it is None.
    """
    every = {step.key: step for step in steps_of(session, job.id)}
    own = [step for step in every.values() if step.kind in DOWNLOADS]
    done = [step for step in own if step.state == StepState.SUCCEEDED]
    later = {form.key: form for step in done for form in forms(step, every).values() if form.key not in every}
    stored = session.scalars(select(StoredStep.key).where(StoredStep.key.in_(later)))
    wanted: list[Step | PlannedStep] = [*done, *(later[key] for key in stored)]
    whole = {step.key: store.manifest(step.key) for step in wanted if store.is_whole(step.key)}
    files = [file for step in wanted if step.key in whole for file in files_of(job, step, whole[step.key])]
    ready = whole.keys() >= {step.key for step in own}
    return ArtifactsOut(
        ready=ready,
        finished_at=max(whole[step.key].finished_at for step in own) if ready else None,
        data=sorted(files, key=lambda file: (-file.ipc, file.form != PACKAGE, file.form, file.name)),
        building=[_building(later[key], job_id) for key, job_id in under_way(session, user, later).items()]
        if user
        else [],
    )


def forms(package: Step, steps: Mapping[str, Step]) -> dict[Export, PlannedStep]:
    """The steps that write in other forms what a package step packed. steps: those of its job, by key.

    Empty for a job of an older version, which did not tell the number of its classes.
    """
    data = steps.get(package.needs.get("data", ""))
    told = (data.result or {}) if data else {}
    if package.kind != StepKind.PACKAGE or data is None or "num_classes" not in told:
        return {}
    classes, resolution = told["num_classes"], data.params["resolution"]
    packed = engine_step(package)
    return {form: another_form(packed, form, classes=classes, resolution=resolution) for form in get_args(Export)}


def under_way(session: Session, user: User, keys: Collection[str]) -> dict[str, str]:
    """Of these steps, those that a job is about to do which the user may see, and the first such job."""
    doing = visible_to(user).join(Step, Step.job_id == Job.id).where(Step.key.in_(keys))
    doing = doing.where(Job.state.not_in(TERMINAL_JOB_STATES)).group_by(Step.key)
    return dict(session.execute(doing.with_only_columns(Step.key, func.min(Job.id))).all())


def _building(step: PlannedStep, job_id: str) -> ExportOut:
    return ExportOut(form=step.params["form"], ipc=step.params["ipc"], state="building", job=job_id, artifact=None)


def files_of(job: Job, step: Step | PlannedStep, manifest: Manifest) -> Iterator[ArtifactOut]:
    """The files that a step of a job wrote, or of another that wrote a form of its images."""
    for name, entry in manifest.files.items():
        yield ArtifactOut(
            name=name,
            ipc=step.params.get("ipc", job.spec["ipc"]),  # packages were of the job's own ipc before there were others
            form=step.params.get("form", PACKAGE),
            size_bytes=entry.size_bytes,
            sha256=entry.sha256,
            step=step.key,
            url=f"/api/v1/jobs/{job.id}/artifacts/{quote(name)}",
        )
