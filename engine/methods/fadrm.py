"""FADRM and FADRM+ (arXiv 2506.24125): optimise, resize, mix the patch back in (eq. 9, 10, 52; Table 8)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from engine.fields import MIN_ITEMS, Iterations, NotEmpty
from engine.methods.recipe import Optimised


class Residual(Optimised):
    """What FADRM and FADRM+ share."""

    ALTERNATES: ClassVar[bool] = True

    alpha: float = Field(
        0.5, ge=0, le=1, description="Weight of the optimised image when its patch is mixed in (eq. 9)."
    )
    budgets: Annotated[tuple[Iterations, ...], NotEmpty] = Field(
        (500, 500, 500, 500),
        max_length=16,
        json_schema_extra=MIN_ITEMS,
        description="Iterations of each stage; the patch is mixed in between stages, so k is their number less one.",
    )

    def _peculiar(self) -> dict[str, object]:
        return {"alpha": self.alpha}


class Fadrm(Residual):
    """Data residual matching with one teacher."""

    method: Literal["fadrm"] = "fadrm"


class FadrmPlus(Residual):
    """FADRM with several teachers, one an iteration in turn; their mean logits are the soft labels."""

    TEACHERS: ClassVar[tuple[int, int]] = (2, 8)

    method: Literal["fadrm+"] = "fadrm+"
