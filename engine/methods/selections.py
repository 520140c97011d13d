"""Methods that take real images as they are: RDED's patches, random images, herding."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from engine.fields import Part


class Patches(Part):
    """Which crops of real images the synthetic ones start from (RDED's selection)."""

    difficulty: Literal["easy", "medium", "hard", "random"] = Field(
        "medium",
        description="Where in the teacher's ranking of crops to choose: easy is RDED's (and what method rded takes by "
        "default), medium FADRM's.",
    )
    factor: int = Field(1, ge=1, le=8, description="Tiles a side: 1 is one crop an image, 2 tiles four crops.")
    candidates: int = Field(300, ge=1, le=100_000, description="Real images looked at per class.")
    crops: int = Field(
        5, ge=1, le=64, description="Random crops tried per image; the one easiest for the teacher is kept."
    )


class _Selection(Part):
    TEACHERS: ClassVar[tuple[int, int]] = (1, 8)


class Rded(_Selection):
    """The patches as they are (RDED, CVPR 2024): no optimisation."""

    method: Literal["rded"] = "rded"


class RandomReal(_Selection):
    """Random real images, whole: the baseline that every accuracy should stand beside."""

    method: Literal["random"] = "random"


class Herding(_Selection):
    """Whole real images whose mean features come nearest to their class's, chosen one by one (Welling, ICML 2009)."""

    method: Literal["herding"] = "herding"
