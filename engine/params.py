"""What each kind of step is told: the part of a spec that decides its output, and nothing else. Torch-free.

These are the `params` of a step, so they are part of its key: a field added here makes every old key of that kind new.
"""

from __future__ import annotations

from typing import Literal

from engine.spec import DatasetSpec, Fadrm, JobSpec, Labels, Patches, Precision, Teacher, _Part


class PrepareParams(_Part):
    """Decode a data set once, to arrays of pixels."""

    dataset: DatasetSpec
    resolution: int
    digest: str


class TeachParams(_Part):
    """Train one teacher. Needs `data`."""

    teacher: Teacher
    flip: bool
    precision: Precision


class SelectParams(_Part):
    """Choose patches (needs `data`, `teacher.0`) or whole random images (needs `data` only)."""

    patches: Patches | None  # None for whole random images
    ipc: int
    seed: int
    precision: Precision


class RecoverParams(_Part):
    """FADRM for one range of ipc indices. Needs `data`, `patches` and every `teacher.<i>`."""

    recipe: Fadrm  # sizes and jitter filled in
    ipc_start: int
    ipc_stop: int
    flip: bool
    seed: int
    precision: Precision


class RelabelParams(_Part):
    """Soft labels for one set of images. Needs `data`, every `teacher.<i>` and every `images.<i>`, in order."""

    labels: Labels
    flip: bool
    seed: int
    precision: Precision


class EvaluateParams(_Part):
    """Train and test one student. Needs `data`, every `images.<i>`, and `labels` when they are soft."""

    student: str
    run: int
    labels: Literal["soft", "hard"]
    plan: Labels  # epochs, batches and cut-mix: with hard labels the student draws the same plan itself
    lr: float
    eta: float
    weight_decay: float
    temperature: float
    every: int
    flip: bool
    seed: int
    precision: Precision


class PackageParams(_Part):
    """Make the download. Needs `data`, `images.<i>`, `labels`, `teacher.<i>`, `row.<i>`, and `patches`, which images start from."""

    spec: JobSpec
    rows: tuple[tuple[str, str, str, int], ...]  # (subject, student, labels, run) of each `row.<i>`
