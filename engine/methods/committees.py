"""Methods that ask several networks at once: G-VBSM (CVPR 2024), CV-DD (ICCV 2025)."""

from __future__ import annotations

from typing import ClassVar, Literal

from engine.methods.recipe import Optimised


class Gvbsm(Optimised):
    """Generalised various backbone and statistics matching: a network drawn at each iteration, convolutions matched too."""

    TEACHERS: ClassVar[tuple[int, int]] = (2, 8)

    method: Literal["g-vbsm"] = "g-vbsm"

    def _peculiar(self) -> dict[str, object]:
        return {"teachers": "random", "conv": True}


class CvDd(Optimised):
    """Committee voting: two networks an iteration, weighted by how well they did before."""

    TEACHERS: ClassVar[tuple[int, int]] = (2, 8)

    method: Literal["cv-dd"] = "cv-dd"

    def _peculiar(self) -> dict[str, object]:
        return {"teachers": "pairs"}
