"""The forms of a download beside the zip, each a file of its own. Images are class-major in all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.export.fkd import fkd
from engine.export.material import Material
from engine.export.parquet import parquet
from engine.export.tensors import normalised, uint8
from engine.export.webdataset import webdataset
from engine.spec import Export


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How one form is written."""

    write: Callable[[Material, Path], Iterator[int]]  # yields how many units are done, wherever it may be stopped
    suffix: str
    unit: Literal["images", "epochs"] = "images"


FORMS: dict[Export, Form] = {
    "uint8": Form(write=uint8, suffix=".pt"),
    "normalised": Form(write=normalised, suffix=".pt"),
    "parquet": Form(write=parquet, suffix=".parquet"),
    "webdataset": Form(write=webdataset, suffix=".tar"),
    "fkd": Form(write=fkd, suffix=".zip", unit="epochs"),
}
