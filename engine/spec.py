"""What a job is: every knob with its bounds, unit, default and source. Torch-free: the API builds forms and docs from it.

Terms are the field's own: teacher, student, ipc (images per class), patch, recover, relabel, soft label.
The parts that say where images come from are in `sources`, those of the methods in `methods`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from engine.fields import MIN_ITEMS, NetworkName, NotEmpty, Part, Precision, Unique
from engine.methods import AS_RDED, Fadrm, Method, Patches, TiledPatches
from engine.sources import DatasetSpec, Digits

Baseline = Literal["rded", "patches", "random", "herding"]
Ipc = Annotated[int, Field(ge=1, le=5000)]
TRAINED, TORCHVISION, UPLOADED = "train", "torchvision", "upload"  # where weights come from, if not from a file
MOST_TEACHERS = 8


def is_none(value: object) -> bool:
    """Whether a field that came later is left out of a dump: the keys of steps that do without it stay what they were."""
    return value is None


class Teacher(Part):
    """A network trained on the real data: what guides recovery and gives soft labels (Tables 10, 12, 14, 16)."""

    network: NetworkName = Field(
        "resnet18", description="With batch norm, where images are optimised; FADRM+ bears others beside such a one."
    )
    weights: str = Field(
        TRAINED,
        min_length=1,
        max_length=1024,
        description="train: on the real images, as below; torchvision: its ImageNet weights; upload: as `upload` says; or "
        "the absolute path of a .safetensors file on the server.",
    )
    upload: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        exclude_if=is_none,
        description="Id of weights that were sent to the server (fadrm teachers upload); `weights` need not be set then.",
    )
    epochs: int = Field(50, ge=1, le=1000, description="Passes over the real training images.")
    batch_size: int = Field(128, ge=2, le=4096)
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="SGD with Nesterov-free momentum 0.9, or AdamW.")
    lr: float = Field(0.1, gt=0, le=10, description="Peak learning rate; falls to 0 along a cosine.")
    weight_decay: float = Field(1e-4, ge=0, le=1)
    cutmix: bool = Field(False, description="CutMix with Beta(1, 1) on every batch (Table 7: the upper bound has it).")
    seed: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="Of its weights and batches; apart from the job's, so that jobs share teachers.",
    )
    crop: Literal["padded", "resized"] | None = Field(
        None,
        description="Augmentation: padded shifts by up to an eighth, resized is a random resized crop; by default padded "
        "below 128 px, resized from there on (Tables 10 to 16).",
    )

    @model_validator(mode="before")
    @classmethod
    def _weights_of_an_upload(cls, given: Any) -> Any:
        """An id says where the weights come from: without it `weights` would have to say so again."""
        if isinstance(given, dict) and given.get("upload") and given.get("weights", TRAINED) == TRAINED:
            return given | {"weights": UPLOADED}
        return given

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.upload is None and self.weights == UPLOADED:
            raise ValueError(
                "weights says upload, but upload names none: write the id that the upload was answered with"
            )
        if self.upload is not None and self.weights != UPLOADED:
            raise ValueError(f"upload and weights ({self.weights}) both say where weights come from: leave one out")
        return self


class Labels(Part):
    """Soft labels: the teachers' logits for every crop that a student will see (BSSL of arXiv 2506.24125)."""

    epochs: int = Field(300, ge=1, le=10_000, description="Epochs that labels are made for, and students train.")
    batch_size: int = Field(16, ge=2, le=1024, description="Images a batch; teacher and student see it as two halves.")
    statistics: Literal["batch", "running"] = Field(
        "batch", description="Batch norm of the teachers while labelling: of each half batch (BSSL), or the remembered."
    )
    cutmix: bool = Field(True, description="CutMix with Beta(1, 1) on every batch.")
    top_k: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Keep the k largest logits of a label; the rest share what is left of its mass.",
    )
    pool: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Keep the labels of so many epochs, whose batches serve the others again.",
    )
    recipe_only: bool = Field(
        False, description="The download holds no labels: train.py makes them again from the teachers, which it holds."
    )


def stored_epochs(labels: Labels) -> int:
    """How many epochs' labels are made: all, or a pool that serves the others again."""
    return min(labels.pool or labels.epochs, labels.epochs)


class Rates(Part):
    """How AdamW goes for one kind of student, where it differs from the others."""

    lr: float = Field(gt=0, le=1)
    eta: float = Field(ge=1, le=10)


class Continual(Part):
    """Class-incremental learning on the distilled images (figure 6): classes come in groups, students begin anew."""

    steps: Annotated[tuple[Annotated[int, Field(ge=2, le=100)], ...], NotEmpty] = Field(
        (5, 10), max_length=4, json_schema_extra=MIN_ITEMS, description="Into how many groups the classes are cut."
    )
    student: NetworkName | None = Field(None, description="By default the first of evaluation.students.")


class Evaluation(Part):
    """Students trained from scratch on the images, tested on the real test set."""

    students: Annotated[tuple[NetworkName, ...], Unique] = Field(
        ("resnet18",), max_length=16, description="Networks of the score card; without any there is none."
    )
    runs: int = Field(3, ge=1, le=20, description="Students per row, each with a seed of its own.")
    baselines: Annotated[tuple[Baseline, ...], Unique] = Field(
        ("rded", "random"),
        description="Judged beside the method: rded (easiest crops, four an image from 128 px on), patches (those the method "
        "starts from), random, herding.",
    )
    labels: Annotated[tuple[Literal["soft", "hard"], ...], NotEmpty, Unique] = Field(
        ("soft", "hard"), json_schema_extra=MIN_ITEMS
    )
    lr: float = Field(0.001, gt=0, le=1, description="AdamW's learning rate.")
    eta: float = Field(2.0, ge=1, le=10, description="Smoothing of the learning rate (eq. 57): 1 ends at 0, 2 at half.")
    rates: dict[NetworkName, Rates] = Field(
        {}, max_length=16, description="Of single students, where they differ (Tables 9, 11, 13, 15, 17, 18)."
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="On weights of two and more dimensions only.")
    temperature: float = Field(20.0, gt=0, le=1000)
    every: int = Field(10, ge=1, le=10_000, description="Test after every so many epochs, and after the last.")
    valid_per_class: int = Field(
        50,
        ge=0,
        le=1000,
        description="Real training images per class, at most a tenth, that no image is made from: they choose the best "
        "epoch, which the test set must not.",
    )
    full_data: bool = Field(
        False,
        description="Train each student network on all real images too, all by the recipe of Table 7 (300 epochs, random "
        "resized crops, CutMix): the upper bound, which HLR and LRS need.",
    )
    continual: Continual | None = None
    quick: bool = Field(
        False, description="A quick look: hard labels, one run, a tenth of the epochs. Not comparable with anything."
    )


class Resources(Part):
    """How the work is cut. No effect on the images."""

    ipcs_per_step: int | None = Field(
        None, ge=1, le=1000, description="Images per class of one recover step; by default steps of some minutes."
    )


Export = Literal["uint8", "normalised", "parquet", "webdataset", "fkd"]


class JobSpec(Part):
    """A whole job. Everything that decides its result is in here, and nothing else is."""

    dataset: DatasetSpec = Field(default_factory=Digits)
    ipc: Ipc = Field(10, description="Synthetic images per class.")
    nested: Annotated[tuple[Ipc, ...], Unique] = Field(
        (), max_length=8, description="Smaller ipcs, each a download of its own: the first images of each class."
    )
    method: Method = Field(default_factory=Fadrm)
    teachers: Annotated[tuple[Teacher, ...], NotEmpty] = Field(
        (Teacher(),), max_length=MOST_TEACHERS, json_schema_extra=MIN_ITEMS
    )
    patches: Patches = Patches()
    labels: Labels = Labels()
    evaluation: Evaluation = Evaluation()
    exports: Annotated[tuple[Export, ...], Unique] = Field(
        (),
        description="Further forms of the download: torch tensors (uint8, or normalised as DD-Ranking wants them), "
        "Hugging Face parquet, WebDataset tar, FKD label files.",
    )
    flip: bool = Field(True, description="Mirror images left-right in augmentation: off for digits and text.")
    precision: Precision = Field(
        "auto",
        description="Of forward passes; statistics and losses stay fp32. auto: bf16 where the device is fast at it.",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1)
    resources: Resources = Resources()

    @model_validator(mode="before")
    @classmethod
    def _rded_takes_the_easiest(cls, given: Any) -> Any:
        """RDED's crops are its own where nothing is said of them, and EDC begins with RDED's: the default is FADRM's."""
        if not isinstance(given, dict):
            return given
        method, patches = given.get("method"), given.get("patches", {})
        name = method.get("method") if isinstance(method, dict) else getattr(method, "method", None)
        if name not in AS_RDED or not isinstance(patches, dict):
            return given
        return given | {"patches": {"difficulty": "easy"} | patches}

    def patches_of(self, subject: Literal["rded", "patches"], resolution: int) -> TiledPatches:
        """How patches are chosen for images of this side, px: RDED's own for the baseline, or what the method asks for."""
        baseline = subject == "rded"
        patches = self.patches.model_copy(update={"difficulty": "easy"}) if baseline else self.patches
        return patches.resolved(resolution, as_rded=baseline or self.method.method in AS_RDED)

    def digest(self) -> str:
        """SHA-256 of the spec, the same for equal specs."""
        return sha256_of(self.model_dump(mode="json"))


def sha256_of(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
