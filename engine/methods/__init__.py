"""The methods: each a file, each a recipe for the same steps. Torch-free."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from engine.methods.cda import Cda
from engine.methods.committees import CvDd, Gvbsm
from engine.methods.edc import Edc
from engine.methods.fadrm import Fadrm, FadrmPlus, Residual
from engine.methods.recipe import Optimised, Recipe
from engine.methods.selections import AS_RDED, Herding, Patches, RandomReal, Rded, TiledPatches
from engine.methods.sre2l import Sre2l, Sre2lPlusPlus

Method = Annotated[
    Fadrm | FadrmPlus | Sre2lPlusPlus | Sre2l | Cda | Gvbsm | CvDd | Edc | Rded | Herding | RandomReal,
    Field(discriminator="method"),
]
TITLES = {
    "fadrm": "FADRM",
    "fadrm+": "FADRM+",
    "sre2l++": "SRe2L++",
    "sre2l": "SRe2L",
    "cda": "CDA",
    "g-vbsm": "G-VBSM",
    "cv-dd": "CV-DD",
    "edc": "EDC",
    "rded": "RDED",
    "herding": "Herding",
    "random": "Random real images",
}

__all__ = [
    "AS_RDED",
    "TITLES",
    "Cda",
    "CvDd",
    "Edc",
    "Fadrm",
    "FadrmPlus",
    "Gvbsm",
    "Herding",
    "Method",
    "Optimised",
    "Patches",
    "RandomReal",
    "Rded",
    "Recipe",
    "Residual",
    "Sre2l",
    "Sre2lPlusPlus",
    "TiledPatches",
]
