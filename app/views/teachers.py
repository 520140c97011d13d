"""Trained teachers as they read: which of the store's there are, how good they are, and who used them."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.models import Job, Step, StepState, User
from app.views.out import Out
from app.visibility import visible_to
from engine.plan import StepKind
from engine.store import Store

LOOKED_AT = 2000  # of the newest steps
MOST = 200  # teachers


class TeacherJob(Out):
    """A job that used a teacher."""

    id: str
    name: str


class TeacherOut(Out):
    """A teacher in the store. A job that asks for the same one finds it there, and trains none."""

    key: str = Field(description="Of the step that made it.")
    network: str
    weights: str = Field(description="train, torchvision, or the file that they came from.")
    dataset: dict[str, Any] = Field(description="The data set, as in a spec.")
    resolution: int | None = Field(description="Side of the images, in pixels.")
    classes: int | None
    top1_pct: float | None = Field(description="Accuracy on the real test set.")
    epochs: int | None
    size_bytes: int
    made_at: datetime | None
    jobs: list[TeacherJob] = Field(description="That used it and that one may see, the newest first.")
    teacher: dict[str, Any] = Field(description="What to write under `teachers` in a spec to get it again.")


def teachers(session: Session, store: Store, user: User) -> list[TeacherOut]:
    """Those of the jobs that a user may see, the newest first."""
    query = (
        select(Step, Job)
        .join(Job, Job.id == Step.job_id)
        .where(Step.kind == StepKind.TEACH, Step.state == StepState.SUCCEEDED, visible_to(user, Job))
        .order_by(Step.id.desc())
        .limit(LOOKED_AT)
    )
    found: dict[str, TeacherOut] = {}
    for step, job in session.execute(query):
        known = found.get(step.key)
        if known is None:
            if len(found) == MOST or not store.is_whole(step.key):
                continue
            known = found[step.key] = _teacher(store, step, job)
        known.jobs.append(TeacherJob(id=job.id, name=job.name))
    return list(found.values())


def _teacher(store: Store, step: Step, job: Job) -> TeacherOut:
    result, facts, wanted = step.result or {}, _facts(store, step.key), step.params.get("teacher", {})
    manifest = store.manifest(step.key)
    return TeacherOut(
        key=step.key,
        network=result.get("network") or wanted.get("network", ""),
        weights=result.get("weights") or wanted.get("weights", ""),
        dataset=job.spec["dataset"],
        resolution=facts.get("resolution"),
        classes=len(facts["classes"]) if "classes" in facts else None,
        top1_pct=result.get("top1_pct"),
        epochs=result.get("epochs"),
        size_bytes=sum(file.size_bytes for file in manifest.files.values()),
        made_at=manifest.finished_at,
        jobs=[],
        teacher=wanted,
    )


def _facts(store: Store, key: str) -> dict[str, Any]:
    """What the step wrote beside the weights; nothing where it cannot be read."""
    try:
        found: dict[str, Any] = json.loads((store.step(key) / "teacher.json").read_text())
    except (OSError, ValueError):
        return {}
    return found
