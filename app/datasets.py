"""The data sets that jobs may use: the built-in ones, and folders of classes under the roots that the settings allow."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, Field

from app.errors import Unprocessable
from engine.datasets import Facts, describe
from engine.errors import EngineError, ErrorReport
from engine.folders import SUFFIXES, TEST_FOLDERS, image_folder
from engine.sources import DatasetSpec, Digits, Folder, HuggingFace, Torchvision, Upload
from engine.spec import JobSpec

KEPT_S = 30.0  # how long facts are kept for dry runs, which a form asks for at every keystroke
DEPTH = 3  # of a data set: train, class, images; files lie no deeper
LOOKED_AT = 200  # entries of a root, and of a folder in it, that the catalogue looks at


class DatasetOut(BaseModel, frozen=True):
    """A data set to choose."""

    title: str
    dataset: DatasetSpec = Field(description="What to write under `dataset` in a spec.")
    classes: int | None = Field(description="Null where it is known only once the images are there.")
    has_test: bool = Field(
        description="Whether it has a test set of its own; else a share of each class is kept for testing."
    )
    note: str = ""
    visibility: str | None = Field(None, description="Of an upload: who sees and uses it: private, team or all.")


@dataclass(slots=True)
class FactsCache:
    """Facts of data sets, kept for some seconds: a large folder takes seconds to walk through."""

    _kept: dict[DatasetSpec, tuple[float, Facts]] = field(default_factory=dict)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def get(self, dataset: DatasetSpec, roots: Iterable[Path], uploads: Path) -> Facts:
        """The facts as they were at most KEPT_S ago."""
        now = time.monotonic()
        with self._turn:
            self._kept = {spec: kept for spec, kept in self._kept.items() if now - kept[0] < KEPT_S}
            kept = self._kept.get(dataset)
        if kept is not None:
            return kept[1]
        facts = facts_of(dataset, roots, uploads)
        with self._turn:
            self._kept[dataset] = now, facts
        return facts


def facts_of(dataset: DatasetSpec, roots: Iterable[Path], uploads: Path) -> Facts:
    """The facts of a data set as they are now. Raises Unprocessable, pointing at the field to blame.

    A folder may hold links, as subsets of large sets do, but none that leads out of the roots.
    """
    try:
        place = _place(dataset)
        if place:
            folder = str(getattr(dataset, place))
            _refuse_links_outside(Path(folder), [root.resolve() for root in roots], place)
        return describe(dataset, uploads)
    except EngineError as error:
        raise refused(_without_place(error.report, dataset, uploads)) from error
    except OSError as error:
        report = ErrorReport(
            code="dataset_missing", message=f"The data set cannot be read: {error}.", pointer="/dataset"
        )
        raise refused(report) from error


def _without_place(report: ErrorReport, dataset: DatasetSpec, uploads: Path) -> ErrorReport:
    """Of an upload, people know the names in their archive, and not where it lies."""
    if not isinstance(dataset, Upload):
        return report
    return within_archive(report, Path(dataset.unpacked(uploads).path))


def within_archive(report: ErrorReport, folder: Path) -> ErrorReport:
    """A report on a folder as one on the archive that was unpacked to it."""
    told = report.message.replace(f"{folder}/", "").replace(str(folder), "the archive")
    return report.model_copy(update={"message": told[:1].upper() + told[1:], "details": {}})


def refused(*reports: ErrorReport) -> Unprocessable:
    """The engine's reasons as an answer: its pointers are into the spec, ours into the body."""
    pointed = [report.model_copy(update={"pointer": f"/spec{report.pointer}"}) for report in reports]
    first = pointed[0]
    detail = first.message if len(pointed) == 1 else f"{len(pointed)} things are wrong. First: {first.message}"
    return Unprocessable(detail, hint=first.hint, errors=pointed)


def within_roots(spec: JobSpec, roots: Iterable[Path]) -> JobSpec:
    """The spec with its folder's real path. Raises Unprocessable when that is not below one of the roots."""
    place = _place(spec.dataset)
    if place is None:
        return spec
    path = _real_path(getattr(spec.dataset, place), list(roots), place)
    return spec.model_copy(update={"dataset": spec.dataset.model_copy(update={place: str(path)})})


def with_real_path(spec: JobSpec) -> JobSpec:
    """The same without a look at whether the folder is there, or may be used."""
    place = _place(spec.dataset)
    if place is None or "\0" in getattr(spec.dataset, place):
        return spec
    path = os.path.realpath(getattr(spec.dataset, place))
    return spec.model_copy(update={"dataset": spec.dataset.model_copy(update={place: path})})


def real_folder(path: str, roots: list[Path]) -> Path:
    """The real path of a folder. Raises Unprocessable when it is not below one of the roots."""
    return _real_path(path, roots, "path")


def _place(dataset: DatasetSpec) -> str | None:
    """The field that names a folder of this server; None where no field does."""
    if isinstance(dataset, HuggingFace):
        return "name" if dataset.folder else None
    return "path" if isinstance(dataset, Folder) else None


def _real_path(given: str, roots: list[Path], place: str) -> Path:
    allowed = ", ".join(map(str, roots)) or "none"
    if not os.path.isabs(given) or "\0" in given:  # noqa: PTH117 - a NUL would make Path raise
        raise _bad_path(f"{given!r} is no absolute path.", f"Allowed roots: {allowed}.", place)
    try:
        real = Path(given).resolve()
        is_allowed = any(real.is_relative_to(root.resolve()) for root in roots)
        is_folder = is_allowed and real.is_dir()
    except (OSError, RuntimeError) as error:  # a name that is too long, a folder that is closed to us, links in a ring
        raise _bad_path(f"{given} cannot be read: {error}.", f"Allowed roots: {allowed}.", place) from error
    if not is_allowed:
        raise _bad_path(
            f"{given} is not under a folder that this server allows.",
            f"Allowed roots: {allowed}; an administrator sets FADRM_DATA_ROOTS.",
            place,
        )
    if not is_folder:
        raise _bad_path(
            f"There is no folder {given}.", f"Give the path of a folder of classes; allowed roots: {allowed}.", place
        )
    return real


def _refuse_links_outside(folder: Path, roots: list[Path], place: str) -> None:
    for parent, folders, files in os.walk(folder, followlinks=True):
        if len(Path(parent).relative_to(folder).parts) >= DEPTH:
            folders.clear()
        for name in (*folders, *files):
            link = Path(parent, name)
            if link.is_symlink() and not any(link.resolve().is_relative_to(root) for root in roots):
                raise _bad_path(
                    f"{link} is a link that leads out of the folders that this server allows.",
                    "Copy what it points to into the data set, or remove the link.",
                    place,
                )


def _bad_path(message: str, hint: str, place: str) -> Unprocessable:
    return refused(ErrorReport(code="dataset_missing", message=message, hint=hint, pointer=f"/dataset/{place}"))


def catalogue(roots: Iterable[Path]) -> list[DatasetOut]:
    """What can be chosen now: the built-in sets, then the folders of classes one or two levels below the roots."""
    folders = {path: found for root in roots for path in _candidates(root.resolve()) if (found := _look_at(path))}
    return [*_built_in(), *(folders[path] for path in sorted(folders))]


def _built_in() -> list[DatasetOut]:
    fetched = "Fetched by the worker on first use, which needs a network once."
    return [
        DatasetOut(title="Handwritten digits (scikit-learn)", dataset=Digits(), classes=10, has_test=True),
        DatasetOut(title="CIFAR-10", dataset=Torchvision(name="cifar10"), classes=10, has_test=True, note=fetched),
        DatasetOut(title="CIFAR-100", dataset=Torchvision(name="cifar100"), classes=100, has_test=True, note=fetched),
        DatasetOut(
            title="ImageNette",
            dataset=Torchvision(name="imagenette", resolution=224),
            classes=10,
            has_test=True,
            note=fetched,
        ),
    ]


def _candidates(root: Path) -> Iterator[Path]:
    for path in _folders(root):
        yield path
        yield from _folders(path)


def _look_at(path: Path) -> DatasetOut | None:
    """The folder as a data set; None when it holds no two folders of images."""
    train = path / "train" if (path / "train").is_dir() else path
    classes = sum(_has_image(folder) for folder in _folders(train, limit=None))
    if classes < 2 or (train == path and path.name in {"train", *TEST_FOLDERS}):
        return None
    has_test = train != path and any((path / name).is_dir() for name in TEST_FOLDERS)
    return DatasetOut(
        title=path.name, dataset=Folder(path=str(path)), classes=classes, has_test=has_test, note=str(path)
    )


def _folders(path: Path, limit: int | None = LOOKED_AT) -> list[Path]:
    """Folders directly below, without links: those may lead anywhere."""
    try:
        with os.scandir(path) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
            )
    except OSError:
        return []
    return [path / name for name in names[:limit]]


def _has_image(folder: Path) -> bool:
    try:
        with os.scandir(image_folder(folder)) as entries:
            return any(Path(entry.name).suffix.lower() in SUFFIXES for entry in entries)
    except OSError:
        return False
