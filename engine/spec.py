"""What a job is: every knob with its bounds, unit, default and source. Torch-free: the API builds forms and docs from it.

Terms are the field's own: teacher, student, ipc (images per class), patch, recover, relabel, soft label.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticKnownError

from engine.networks import NETWORKS

MAX_RESOLUTION = 512


class _Part(BaseModel):
    """A part of a spec: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _known_network(name: str) -> str:
    if name not in NETWORKS:
        raise ValueError(f"{name!r} is no network this engine knows: choose one of {', '.join(sorted(NETWORKS))}")
    return name


def _known_network_with_batch_norm(name: str) -> str:
    if not NETWORKS[_known_network(name)].batch_norm:
        raise ValueError(f"{name!r} has no batch norm, whose statistics a teacher is asked for: choose another network")
    return name


NetworkName = Annotated[str, AfterValidator(_known_network), Field(json_schema_extra={"enum": sorted(NETWORKS)})]
TeacherName = Annotated[
    str,
    AfterValidator(_known_network_with_batch_norm),
    Field(json_schema_extra={"enum": sorted(name for name, network in NETWORKS.items() if network.batch_norm)}),
]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Resolution = Annotated[int, Field(ge=8, le=MAX_RESOLUTION)]


def _at_least_one(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """What `min_length=1` says, but silent when an entry is wrong: pydantic counts the right ones only."""
    if not values:
        raise PydanticKnownError("too_short", {"field_type": "Tuple", "min_length": 1, "actual_length": 0})
    return values


NotEmpty = AfterValidator(_at_least_one)
MIN_ITEMS: dict[str, Any] = {"minItems": 1}  # the same for the JSON schema


class Digits(_Part):
    """Handwritten digits that ship with scikit-learn: 1,797 greyscale images of 8x8, enlarged; a fifth is the test set."""

    source: Literal["digits"] = "digits"
    resolution: Resolution = Field(16, description="Side of the square images, in pixels.")


class Folder(_Part):
    """A folder of classes on the server: `path/train/<class>/*` and `path/test` (or `val`), or `path/<class>/*`."""

    source: Literal["folder"] = "folder"
    path: str = Field(min_length=1, max_length=1024, description="Absolute path, under a root that the server allows.")
    resolution: Resolution | None = Field(
        None, description="Side of the square images, in pixels; by default that of the images, at most 224."
    )
    test_fraction: float = Field(
        0.2, gt=0, lt=0.9, description="Share of each class kept for testing where the folder has no test set."
    )


class Torchvision(_Part):
    """A public data set that torchvision fetches on first use (needs a network once)."""

    source: Literal["torchvision"] = "torchvision"
    name: Literal["cifar10", "cifar100"] = "cifar10"
    resolution: Resolution = Field(32, description="Side of the square images, in pixels.")


DatasetSpec = Annotated[Digits | Folder | Torchvision, Field(discriminator="source")]


class Teacher(_Part):
    """A network trained on the real data: what guides recovery and gives soft labels (Tables 10, 12, 14, 16)."""

    network: TeacherName = Field("resnet18", description="Needs batch norm.")
    epochs: int = Field(50, ge=1, le=1000, description="Passes over the real training images.")
    batch_size: int = Field(128, ge=2, le=4096)
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="SGD with Nesterov-free momentum 0.9, or AdamW.")
    lr: float = Field(0.1, gt=0, le=10, description="Peak learning rate; falls to 0 along a cosine.")
    weight_decay: float = Field(1e-4, ge=0, le=1)
    seed: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="Of its weights and batches; apart from the job's, so that jobs share teachers.",
    )
    crop: Literal["padded", "resized"] = Field(
        "padded", description="Augmentation: shift by up to an eighth (small images), or a random resized crop."
    )


class Patches(_Part):
    """Which crops of real images the synthetic ones start from (RDED's selection; recipe.md 2.2)."""

    difficulty: Literal["easy", "medium", "hard", "random"] = Field(
        "medium", description="Where in the teacher's ranking of crops to choose: easy is RDED's, medium FADRM's."
    )
    factor: Literal[1, 2] = Field(1, description="Tiles a side: 1 is one crop an image, 2 tiles four crops.")
    candidates: int = Field(300, ge=1, le=100_000, description="Real images looked at per class.")
    crops: int = Field(
        5, ge=1, le=64, description="Random crops tried per image; the one easiest for the teacher is kept."
    )


class Fadrm(_Part):
    """Data residual matching: optimise, resize, mix the patch back in (eq. 9, 10, 52; Table 8).

    One teacher is FADRM, several in turn are FADRM+.
    """

    method: Literal["fadrm"] = "fadrm"
    alpha: float = Field(
        0.5, ge=0, le=1, description="Weight of the optimised image when its patch is mixed in (eq. 9)."
    )
    budgets: Annotated[tuple[Annotated[int, Field(ge=1, le=100_000)], ...], NotEmpty] = Field(
        (500, 500, 500, 500),
        max_length=16,
        json_schema_extra=MIN_ITEMS,
        description="Iterations of each stage; the patch is mixed in between stages, so k is their number less one.",
    )
    sizes: tuple[Resolution, ...] | None = Field(
        None, description="Resolution of each stage, px; by default 200, 224 in turn at 224, else the data set's own."
    )
    lr: float = Field(0.25, gt=0, le=10, description="Adam's learning rate; one cosine over the whole budget.")
    r_bn: float = Field(0.01, ge=0, le=100, description="Weight of the batch-norm statistics' distance in the loss.")
    first_bn: float = Field(10.0, ge=0, le=1000, description="Factor of the first batch-norm layer's distance.")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.5, 0.9)
    crop: bool = Field(True, description="A random resized crop, shared by the batch, at each iteration.")
    jitter: int | None = Field(
        None,
        ge=0,
        le=256,
        description="Largest roll in pixels; by default 4 up to 64 px, 32 above (hard-coded by the authors).",
    )
    batch: int = Field(100, ge=1, le=1000, description="Classes optimised together, one image each.")
    rounding: Literal["nearest", "floor"] = Field(
        "nearest", description="From floats to 8-bit pixels; the authors' code floors, which darkens by half a level."
    )

    @model_validator(mode="after")
    def _one_size_per_budget(self) -> Self:
        if self.sizes is not None and len(self.sizes) != len(self.budgets):
            raise ValueError(
                f"sizes has {len(self.sizes)} entries and budgets {len(self.budgets)}: give one size per stage"
            )
        return self


class Rded(_Part):
    """The patches as they are (RDED, CVPR 2024): no optimisation."""

    method: Literal["rded"] = "rded"


class RandomReal(_Part):
    """Random real images, whole: the baseline that every accuracy should stand beside."""

    method: Literal["random"] = "random"


Method = Annotated[Fadrm | Rded | RandomReal, Field(discriminator="method")]


class Labels(_Part):
    """Soft labels: the teachers' logits for every crop that a student will see (BSSL; recipe.md 2.3)."""

    epochs: int = Field(300, ge=1, le=10_000, description="Epochs that labels are made for, and students train.")
    batch_size: int = Field(16, ge=2, le=1024, description="Images a batch; teacher and student see it as two halves.")
    statistics: Literal["batch", "running"] = Field(
        "batch", description="Batch norm of the teachers while labelling: of each half batch (BSSL), or the remembered."
    )
    cutmix: bool = Field(True, description="CutMix with Beta(1, 1) on every batch.")


class Evaluation(_Part):
    """Students trained from scratch on the images, tested on the real test set (recipe.md 2.4)."""

    students: tuple[NetworkName, ...] = Field(("resnet18",), max_length=16)
    runs: int = Field(3, ge=1, le=20, description="Students per row, each with a seed of its own.")
    baselines: tuple[Literal["rded", "patches", "random"], ...] = Field(
        ("rded", "random"),
        description="Judged beside the method: rded (easiest crops), patches (those the method starts from), random.",
    )
    labels: Annotated[tuple[Literal["soft", "hard"], ...], NotEmpty] = Field(
        ("soft", "hard"), json_schema_extra=MIN_ITEMS
    )
    lr: float = Field(0.001, gt=0, le=1, description="AdamW's learning rate.")
    eta: float = Field(2.0, ge=1, le=10, description="Smoothing of the learning rate (eq. 57): 1 ends at 0, 2 at half.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="On weights of two and more dimensions only.")
    temperature: float = Field(20.0, gt=0, le=1000)
    every: int = Field(10, ge=1, le=10_000, description="Test after every so many epochs, and after the last.")

    @model_validator(mode="after")
    def _nothing_twice(self) -> Self:
        for name in ("students", "baselines", "labels"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"{name} names something twice")
        return self


class Resources(_Part):
    """How the work is cut. No effect on the images."""

    ipcs_per_step: int | None = Field(
        None, ge=1, le=1000, description="Images per class of one recover step; by default steps of some minutes."
    )


class JobSpec(_Part):
    """A whole job. Everything that decides its result is in here, and nothing else is."""

    dataset: DatasetSpec = Field(default_factory=Digits)
    ipc: int = Field(10, ge=1, le=5000, description="Synthetic images per class.")
    method: Method = Field(default_factory=Fadrm)
    teachers: Annotated[tuple[Teacher, ...], NotEmpty] = Field((Teacher(),), max_length=8, json_schema_extra=MIN_ITEMS)
    patches: Patches = Patches()
    labels: Labels = Labels()
    evaluation: Evaluation = Evaluation()
    flip: bool = Field(True, description="Mirror images left-right in augmentation: off for digits and text.")
    precision: Precision = Field(
        "auto",
        description="Of forward passes; statistics and losses stay fp32. auto: bf16 where the device is fast at it.",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1)
    resources: Resources = Resources()

    def digest(self) -> str:
        """SHA-256 of the spec, the same for equal specs."""
        return sha256_of(self.model_dump(mode="json"))


def sha256_of(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
