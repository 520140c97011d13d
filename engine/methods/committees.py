"""Methods that ask several networks at once: G-VBSM (CVPR 2024), CV-DD (ICCV 2025)."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field

from engine.methods.recipe import Optimised
from engine.networks import SMALL_BELOW_PX


class Gvbsm(Optimised):
    """Generalised various backbone and statistics matching: a network drawn at each iteration, convolutions matched too.

    Starts from noise, as the authors' code does. Left out: their term for diversity within a class, which
    is 0 for blocks with one image of a class; patch-wise statistics; moving averages of the images' statistics.
    """

    TEACHERS: ClassVar[tuple[int, int]] = (2, 8)

    method: Literal["g-vbsm"] = "g-vbsm"
    lr: float | None = Field(  # type: ignore[assignment] # until the side of the images is known: see `resolved`
        None,
        gt=0,
        le=10,
        description="Adam's learning rate; one cosine over the whole budget. By default 0.1, below 128 px 0.05.",
    )

    def resolved(self, resolution: int) -> Self:
        """With the learning rate of the authors' recover.sh: 0.05 for CIFAR and Tiny-ImageNet, 0.1 for ImageNet-1K."""
        default = 0.05 if resolution < SMALL_BELOW_PX else 0.1
        lr = default if self.lr is None else self.lr
        return super().resolved(resolution).model_copy(update={"lr": lr})

    def _peculiar(self) -> dict[str, object]:
        return {"start": "noise", "teachers": "random", "conv": True}


class CvDd(Optimised):
    """Committee voting: two networks an iteration, weighted by how well they did before.

    How a vote goes: `engine.committee`.
    """

    TEACHERS: ClassVar[tuple[int, int]] = (2, 8)

    method: Literal["cv-dd"] = "cv-dd"

    def _peculiar(self) -> dict[str, object]:
        return {"teachers": "pairs"}
