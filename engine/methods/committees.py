"""Methods that ask several networks at once: G-VBSM (CVPR 2024), CV-DD (ICCV 2025)."""

from __future__ import annotations

from typing import ClassVar, Literal

from engine.methods.recipe import Optimised


class Gvbsm(Optimised):
    """Generalised various backbone and statistics matching: a network drawn at each iteration, convolutions matched too.

    Starts from noise, as the authors' code does. Left out: their term for diversity within a class, which
    is 0 for blocks with one image of a class; patch-wise statistics; moving averages of the images' statistics.
    """

    TEACHERS: ClassVar[tuple[int, int]] = (2, 8)

    method: Literal["g-vbsm"] = "g-vbsm"

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
