"""What each kind of step is told: the part of a spec that decides its output, and nothing else. Torch-free.

These are the `params` of a step, so they are part of its key: a field added here makes every old key of that kind new.
"""

from __future__ import annotations

from typing import Literal

from engine.fields import Part, Precision
from engine.methods import Recipe, TiledPatches
from engine.sources import DatasetSpec
from engine.spec import Export, JobSpec, Labels, Teacher


class PrepareParams(Part):
    """Decode a data set once, to arrays of pixels."""

    dataset: DatasetSpec
    resolution: int
    digest: str


class TeachParams(Part):
    """Train one teacher, or import it. Needs `data`."""

    teacher: Teacher
    weights_sha256: str | None = None  # of the file that the teacher's weights come from
    flip: bool
    precision: Precision


class ObserveParams(Part):
    """Statistics of the real images inside one teacher, beside those it remembers. Needs `data` and `teacher`."""

    conv: bool  # in front of its convolutions
    classes: bool  # of each class at its batch norms
    crops: bool  # how many random crops it recognises
    precision: Precision


class SelectParams(Part):
    """Choose real images. Needs `data`; patches and herding need `teacher.0` too."""

    choice: Literal["patches", "random", "herding"]
    patches: TiledPatches | None = None  # how patches are chosen
    ipc: int
    valid_per_class: int  # training images that are left out, for choosing the best epoch
    seed: int
    precision: Precision


class RecoverParams(Part):
    """Optimise images for one range of ipc indices. Needs `data`, every `teacher.<i>`, `patches` where the recipe starts
    from them, and `observed.<i>` where it asks for more than batch norm remembers."""

    recipe: Recipe
    ipc_start: int
    ipc_stop: int
    flip: bool
    seed: int
    precision: Precision


class RelabelParams(Part):
    """Soft labels for one set of images. Needs `data`, every `teacher.<i>` and every `images.<i>`, in order."""

    labels: Labels
    take: int  # the first so many images of each class
    flip: bool
    seed: int
    precision: Precision


class EvaluateParams(Part):
    """Train and test one student. Needs `data`, every `images.<i>`, and `labels` when they are soft."""

    student: str
    run: int
    labels: Literal["soft", "hard"]
    plan: Labels  # epochs, batches and cut-mix: with hard labels the student draws the same plan itself
    take: int
    valid_per_class: int
    lr: float
    eta: float
    weight_decay: float
    temperature: float
    every: int
    flip: bool
    seed: int
    precision: Precision


class ContinualParams(Part):
    """Class-incremental learning by one student a group. Needs `data`, every `images.<i>` and every `teacher.<i>`."""

    student: str
    run: int
    steps: int  # groups of classes
    plan: Labels
    take: int
    lr: float
    eta: float
    weight_decay: float
    temperature: float
    flip: bool
    seed: int
    precision: Precision


class PackageParams(Part):
    """Make the download. Needs `data`, `images.<i>`, `labels`, `teacher.<i>`, `row.<i>`, `continual.<i>`, `full.<i>`, and
    `patches`, where images start from any."""

    spec: JobSpec
    ipc: int  # the spec's own, or one of its nested ones
    rows: tuple[tuple[str, str, str, int], ...]  # (subject, student, labels, run) of each `row.<i>`
    continual: tuple[tuple[str, str, int, int], ...] = ()  # (subject, student, steps, run) of each `continual.<i>`
    full: tuple[str, ...] = ()  # network of each `full.<i>`: trained on all real images


class ExportParams(Part):
    """The download in another form. Needs `data`, `images.<i>` and `labels`."""

    form: Export
    ipc: int
    labels: Labels
    seed: int
