"""What can be downloaded of a job: a zip file for each number of images per class, and its further forms."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from urllib.parse import quote

from pydantic import Field
from sqlalchemy.orm import Session

from app.jobs import steps_of
from app.models import Job, Step, StepState
from app.views.out import Out
from engine.plan import StepKind
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


class ArtifactsOut(Out):
    """The files of a job, as far as they are written: the largest ipc first, and of each the package first."""

    ready: bool = Field(description="Whether all of them are.")
    finished_at: datetime | None
    data: list[ArtifactOut]


def artifacts(session: Session, store: Store, job: Job) -> ArtifactsOut:
    """What can be downloaded: the files of all steps that write downloads, once these are whole."""
    steps = [step for step in steps_of(session, job.id) if step.kind in (StepKind.PACKAGE, StepKind.EXPORT)]
    whole = [
        (step, store.manifest(step.key))
        for step in steps
        if step.state == StepState.SUCCEEDED and store.is_whole(step.key)
    ]
    files = [file for step, manifest in whole for file in _files(job, step, manifest)]
    ready = len(whole) == len(steps)
    return ArtifactsOut(
        ready=ready,
        finished_at=max(manifest.finished_at for _, manifest in whole) if ready else None,
        data=sorted(files, key=lambda file: (-file.ipc, file.form != PACKAGE, file.form, file.name)),
    )


def _files(job: Job, step: Step, manifest: Manifest) -> Iterator[ArtifactOut]:
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
