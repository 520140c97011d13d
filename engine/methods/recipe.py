"""What recovery is told, whichever method asks: a method that optimises is a way to fill in this recipe. Torch-free."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from engine.fields import MIN_ITEMS, Iterations, NotEmpty, Part, Resolution
from engine.schedule import cosine_lr, default_jitter, stage_sizes

Betas = tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]]


class Recipe(Part):
    """One optimisation of images, with nothing left open. Defaults: FADRM's scripts."""

    start: Literal["patches", "noise"] = "patches"
    budgets: tuple[int, ...]  # iterations of each stage
    sizes: tuple[int, ...]  # px of each stage
    alpha: float = 1.0  # weight of the optimised image when its patch is mixed in between stages; 1: nothing is
    lr: float = 0.25
    r_bn: float = 0.01
    first_bn: float = 10.0
    betas: Betas = (0.5, 0.9)
    crop: bool = True
    least_crop: tuple[float, float] = (0.08, 0.08)  # smallest crop's share of the area, at first and in the end
    jitter: int
    batch: int = 100
    rounding: Literal["nearest", "floor"] = "nearest"
    teachers: Literal["turns", "random", "pairs"] = "turns"  # whom an iteration asks: see `engine.committee`
    conv: bool = False  # match the statistics in front of convolutions too
    class_share: float = 0.0  # of the distance to class-wise statistics in what batch norm is matched with
    flatness: float = 0.0  # weight of the distance to the moving average's logits

    @model_validator(mode="after")
    def _noise_has_no_patch(self) -> Recipe:
        if self.start == "noise" and self.alpha != 1:
            raise ValueError("images that start from noise have no patch to be mixed in: alpha must be 1")
        return self

    @property
    def steps(self) -> int:
        """The whole budget, iterations."""
        return sum(self.budgets)

    def stage_of(self, step: int) -> int:
        """The stage that iteration `step` belongs to."""
        for index, budget in enumerate(self.budgets):
            if step < budget:
                return index
            step -= budget
        raise IndexError(f"the budget is {self.steps} iterations")

    def smallest_crop(self, step: int) -> float:
        """The share of the area that a crop has at least in iteration `step`: along a cosine from first to last.

        Source: CDA (arXiv 2311.18838) recover_cda_in1k.py, its default among step, linear and cosine, milestone 1.
        """
        first, last = self.least_crop
        return last + cosine_lr(step, steps=self.steps, lr=first - last)


class Optimised(Part):
    """The knobs that all methods share which optimise images."""

    TEACHERS: ClassVar[tuple[int, int]] = (1, 1)  # how many a job may name, at least and at most
    ALTERNATES: ClassVar[bool] = False  # whether large images spend every other stage at a lower resolution

    budgets: Annotated[tuple[Iterations, ...], NotEmpty] = Field(
        (4000,), max_length=16, json_schema_extra=MIN_ITEMS, description="Iterations of each stage."
    )
    sizes: tuple[Resolution, ...] | None = Field(
        None,
        description="Resolution of each stage, px; by default the data set's own (FADRM: 200, 224 in turn at 224).",
    )
    lr: float = Field(0.25, gt=0, le=10, description="Adam's learning rate; one cosine over the whole budget.")
    r_bn: float = Field(0.01, ge=0, le=100, description="Weight of the batch-norm statistics' distance in the loss.")
    first_bn: float = Field(10.0, ge=0, le=1000, description="Factor of the first batch-norm layer's distance.")
    betas: Betas = (0.5, 0.9)
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
    def _one_size_per_budget(self) -> Optimised:
        if self.sizes is not None and len(self.sizes) != len(self.budgets):
            raise ValueError(
                f"sizes has {len(self.sizes)} entries and budgets {len(self.budgets)}: give one size per stage"
            )
        return self

    def resolved(self, resolution: int) -> Self:
        """The same for images of this side, px: what depends on it is filled in, the size of each stage and the roll."""
        own = (resolution,) * len(self.budgets)
        sizes = self.sizes or (stage_sizes(resolution, len(self.budgets)) if self.ALTERNATES else own)
        jitter = default_jitter(resolution) if self.jitter is None else self.jitter
        return self.model_copy(update={"sizes": sizes, "jitter": jitter})

    def recipe(self, resolution: int) -> Recipe:
        """What recovery is told for images of this side, px."""
        shared = self.resolved(resolution).model_dump(include=set(Optimised.model_fields))
        return Recipe.model_validate(shared | self._peculiar())

    def _peculiar(self) -> dict[str, object]:
        """The fields of the recipe that this method sets beside the shared ones."""
        return {}
