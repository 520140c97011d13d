"""SRe2L (NeurIPS 2023), from noise, and SRe2L++ (the baseline of arXiv 2501.07575 and 2506.24125), from patches."""

from __future__ import annotations

from typing import Literal

from engine.methods.recipe import Optimised


class Sre2l(Optimised):
    """Squeeze, recover, relabel: images from noise that a teacher recognises and whose statistics are those of real ones."""

    method: Literal["sre2l"] = "sre2l"

    def _peculiar(self) -> dict[str, object]:
        return {"start": "noise"}


class Sre2lPlusPlus(Optimised):
    """FADRM without residuals and lower resolutions: from patches, 4,000 iterations in one go."""

    method: Literal["sre2l++"] = "sre2l++"
