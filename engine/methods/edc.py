"""EDC (NeurIPS 2024): patches that barely move, in flat places, towards the statistics of their own class."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from engine.fields import MIN_ITEMS, Iterations, NotEmpty
from engine.methods.recipe import Optimised


class Edc(Optimised):
    """Elucidating the design space: real start, small steps, flatness, soft category-aware matching.

    Starts from RDED's images, the easiest crops, where a spec says nothing of patches. Networks take turns and
    convolutions are matched too, as in the authors' code. Left out: patch-wise statistics, moving averages of the images'
    statistics.
    """

    TEACHERS: ClassVar[tuple[int, int]] = (1, 8)

    method: Literal["edc"] = "edc"
    budgets: Annotated[tuple[Iterations, ...], NotEmpty] = Field(
        (2000,), max_length=16, json_schema_extra=MIN_ITEMS, description="Iterations of each stage."
    )
    lr: float = Field(0.05, gt=0, le=10, description="Adam's learning rate; one cosine over the whole budget.")
    class_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Weight of the distance to class-wise statistics beside that to those of all classes.",
    )
    flatness: float = Field(1.0, ge=0, le=100, description="Weight of the distance to the moving average's logits.")

    def _peculiar(self) -> dict[str, object]:
        return {"conv": True, "class_share": self.class_share, "flatness": self.flatness}
