"""What is in a folder of classes, before a job is made of it: images of each class, and one of each on a contact sheet."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image, ImageOps
from pydantic import BaseModel, Field

from app.datasets import facts_of, real_folder
from app.errors import Unprocessable
from engine.datasets import Facts
from engine.folders import index_folder
from engine.sources import Folder
from engine.upright import UNREADABLE, upright

TILE = 64  # px
GAP = 2  # px between the tiles
COLUMNS = 10
SHOWN = 100  # classes on a sheet: the first
LARGEST = 25_000_000  # pixels of an image that is decoded to be looked at; another one stays grey
GREY = (200, 200, 200)
SHEET_URL = "/api/v1/datasets/preview/sheet"


class ClassCount(BaseModel, frozen=True):
    """Images of one class."""

    name: str
    train: int
    test: int


class FolderPreview(BaseModel, frozen=True):
    """What a folder holds."""

    title: str
    train_images: int
    test_images: int
    resolution: int = Field(description="What a job takes by default, in pixels.")
    balance: float = Field(description="Training images of the smallest class, as a share of those of the largest.")
    classes: list[ClassCount] = Field(description="In the order of the labels.")
    sheet: str = Field(description="Address of a PNG with the first training image of each class, ten a row.")
    shown: int = Field(description="How many classes the sheet shows: the first.")


def known(path: str, roots: Iterable[Path], uploads: Path) -> tuple[Folder, Facts]:
    """The folder by its real path, and its facts. Raises Unprocessable as planning a job does, but of the parameter."""
    try:
        folder = Folder(path=str(real_folder(path, list(roots))))
        return folder, facts_of(folder, roots, uploads)
    except Unprocessable as error:
        details = {"parameter": "path"}
        told = [report.model_copy(update={"pointer": "", "details": details}) for report in error.errors]
        raise Unprocessable(error.detail, hint=error.hint, errors=told) from error


def preview(folder: Folder, facts: Facts) -> FolderPreview:
    """How many images there are of what."""
    counts = zip(facts.classes, facts.train_per_class, facts.test_per_class, strict=True)
    return FolderPreview(
        title=facts.title,
        train_images=facts.train_images,
        test_images=facts.test_images,
        resolution=facts.resolution,
        balance=min(facts.train_per_class) / max(facts.train_per_class),
        classes=[ClassCount(name=name, train=train, test=test) for name, train, test in counts],
        sheet=f"{SHEET_URL}?{urlencode({'path': folder.path})}",
        shown=min(len(facts.classes), SHOWN),
    )


def sheet(folder: Folder) -> bytes:
    """A PNG: the first training image of each class, row by row on white. What cannot be read is grey."""
    train, _, classes = index_folder(folder)
    first = {source.label: source.path for source in reversed(train)}
    paths = [Path(folder.path) / first[label] for label in range(min(len(classes), SHOWN))]
    columns, side = min(len(paths), COLUMNS), TILE + GAP
    made = Image.new("RGB", (columns * side - GAP, -(-len(paths) // columns) * side - GAP), "white")
    for place, path in enumerate(paths):
        made.paste(_tile(path), (place % columns * side, place // columns * side))
    buffer = BytesIO()
    made.save(buffer, "PNG")
    return buffer.getvalue()


def _tile(path: Path) -> Image.Image:
    """The middle of an image, upright."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > LARGEST:
                raise ValueError(f"{image.width}x{image.height} pixels")
            image.draft("RGB", (2 * TILE, 2 * TILE))  # of a JPEG: decoded at a fraction of its size
            return ImageOps.fit(upright(image).convert("RGB"), (TILE, TILE))
    except UNREADABLE:
        return Image.new("RGB", (TILE, TILE), GREY)
