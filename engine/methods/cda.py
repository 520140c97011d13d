"""CDA (TMLR 2024): SRe2L whose crops grow harder, from whole images to small pieces."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from engine.methods.recipe import Optimised


class Cda(Optimised):
    """The smallest crop allowed shrinks along the iterations: a cosine over all of them, as in the authors' code."""

    method: Literal["cda"] = "cda"
    easiest_crop: float = Field(
        1.0, gt=0.08, le=1, description="Share of the area that the smallest crop has at first; it ends at 0.08."
    )

    def _peculiar(self) -> dict[str, object]:
        return {"start": "noise", "least_crop": (self.easiest_crop, 0.08)}
