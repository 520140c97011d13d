"""Methods that take real images as they are: RDED's patches, random images, herding."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from engine.fields import Part
from engine.networks import SMALL_BELOW_PX

# Methods that take RDED's patches where a spec says nothing of them: EDC starts from its images.
AS_RDED = ("rded", "edc")
RDED_FACTOR = 2  # of large images: four crops each (arXiv 2312.03526: N = 4)


class Patches(Part):
    """Which crops of real images the synthetic ones start from (RDED's selection)."""

    difficulty: Literal["easy", "medium", "hard", "random"] = Field(
        "medium",
        description="Where in the teacher's ranking of crops to choose: easy is RDED's (and what methods rded and edc take "
        "by default), medium FADRM's.",
    )
    factor: int | None = Field(
        None,
        ge=1,
        le=8,
        description="Tiles a side: 1 is one crop an image, 2 tiles four crops. By default 1, but 2 from 128 px on for RDED, "
        "method and baseline, and for edc; a number here holds for all of them.",
    )
    candidates: int = Field(300, ge=1, le=100_000, description="Real images looked at per class.")
    crops: int = Field(
        5, ge=1, le=64, description="Random crops tried per image; the one easiest for the teacher is kept."
    )

    def resolved(self, resolution: int, *, as_rded: bool) -> TiledPatches:
        """The same for images of this side, px: RDED tiles large ones of four crops, small ones of one.

        Source: RDED's scripts, factor 2 at 224 px, 1 for CIFAR and Tiny-ImageNet; between them the line is that of networks.
        """
        factor = RDED_FACTOR if as_rded and resolution >= SMALL_BELOW_PX else 1
        return TiledPatches.model_validate({"factor": factor} | self.model_dump(exclude_none=True))


class TiledPatches(Patches):
    """Patches of which is settled how many tiles an image has: what a step is told."""

    factor: int = Field(ge=1, le=8)


class _Selection(Part):
    TEACHERS: ClassVar[tuple[int, int]] = (1, 8)


class Rded(_Selection):
    """The patches as they are (RDED, CVPR 2024): no optimisation. The easiest ones, and four an image from 128 px on."""

    method: Literal["rded"] = "rded"


class RandomReal(_Selection):
    """Random real images, whole: the baseline that every accuracy should stand beside."""

    method: Literal["random"] = "random"


class Herding(_Selection):
    """Whole real images whose mean features come nearest to their class's, chosen one by one (Welling, ICML 2009)."""

    method: Literal["herding"] = "herding"
