"""A small job with all exports, and its downloads by form."""

from __future__ import annotations

from pathlib import Path

from engine.plan import Step, StepKind
from tests.engine.jobs import SPEC, Job

ALONE = SPEC.evaluation.model_copy(update={"students": (), "baselines": ()})
EXPORTS = SPEC.model_copy(
    update={"nested": (1,), "evaluation": ALONE, "exports": ("uint8", "normalised", "parquet", "webdataset", "fkd")}
)


def export_of(job: Job, form: str, ipc: int = 2) -> Step:
    """The step that wrote a form."""
    return next(
        step
        for step in job.plan.steps
        if step.kind == StepKind.EXPORT and (step.params["form"], step.params["ipc"]) == (form, ipc)
    )


def file_of(job: Job, form: str, ipc: int = 2) -> Path:
    """The file of a form."""
    (file,) = (job.store.step(export_of(job, form, ipc).key)).glob("fadrm-*")
    return file
