"""Make the download: one zip file that explains itself and can be trained from with torch alone.

Leaves fadrm-<key>.zip. I images per class, K classes, T tiles of an image, S pixels a side.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

from torch import Tensor

import engine
from engine import arrays, png
from engine.archive import Archive
from engine.card import card
from engine.context import Context, Telling
from engine.data import RealData, images_of, real_data, teacher_facts
from engine.errors import Drained
from engine.events import Event, Progress, Started
from engine.labels import PLAN_ARRAYS
from engine.params import PackageParams
from engine.scores import Score, collect
from engine.store import MANIFEST, Manifest

CODE = Path(engine.__file__).parent
MODULES = (  # all that training needs, word for word; they import torch alone, but for decoding (Pillow, with --test)
    "__init__",
    "arrays",
    "augment",
    "decoding",
    "labels",
    "losses",
    "networks",
    "pixels",
    "png",
    "precision",
    "randomness",
    "schedule",
    "students",
)
MAX_TEST_BYTES = 64 * 2**20
TOLD_EVERY = 100  # images
FORMAT = 1


def package(context: Context[PackageParams]) -> Telling:
    """Pack everything. An interrupted one begins anew: it takes seconds."""
    data, images = real_data(context.folder("data")), images_of(context.folders("images"))
    yield Started(total=images.shape[0] * images.shape[1], unit="images", device="cpu")
    name = f"fadrm-{context.key[:12]}"
    path = context.out / f"{name}.zip"
    scores = _scores(context)
    with Archive(path) as archive:
        files = yield from _add_images(context, archive, images, data)
        _add_arrays(context, archive, data)
        facts = _facts(context, data, name, files)
        facts["files"] = {file: entry.model_dump() for file, entry in archive.files.items()}
        archive.add("manifest.json", json.dumps(facts, indent=1, ensure_ascii=False).encode())
        archive.add("card.md", card(facts, context.params.spec, scores).encode())
        _add_code(archive)
    return {"file": path.name, "size_bytes": path.stat().st_size, "images": len(files), "scores": facts["scores"]}


def _scores(context: Context[PackageParams]) -> list[Score]:
    """The score card, out of the rows' evaluate steps."""
    rows = zip(context.params.rows, context.folders("row"), strict=True)
    return collect(
        ((subject, student, labels), _manifest(folder).result) for (subject, student, labels, _), folder in rows
    )


def _add_images(
    context: Context[PackageParams], archive: Archive, images: Tensor, data: RealData
) -> Generator[Event, None, list[dict[str, Any]]]:
    """The images in the order of the labels (ipc after ipc, classes ascending); what the manifest says of each."""
    origin = arrays.read(context.folder("patches") / "origin.npy") if "patches" in context.needs else None
    total, entries = images.shape[0] * images.shape[1], []
    for ipc, row in enumerate(images):
        for label, pixels in enumerate(row):
            file = f"images/{class_folder(label, data.classes[label])}/{ipc:05d}.png"
            archive.add(file, png.encode(pixels))
            tiles = [] if origin is None else origin[ipc, label].tolist()  # from noise: no real image
            sources = [_source(tile, data) for tile in tiles]
            entries.append({"file": file, "class": label, "ipc": ipc, "sources": sources})
            if context.stop():
                raise Drained("stopped while packing; it begins anew")
            if len(entries) % TOLD_EVERY == 0 or len(entries) == total:
                yield Progress(done=len(entries), total=total, unit="images")
    return entries


def class_folder(label: int, name: str) -> str:
    """A folder name that sorts by class index, on every file system: `00003_tench`."""
    return f"{label:05d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[:40]}"


def _source(tile: list[int], data: RealData) -> dict[str, Any]:
    index, top, left, height, width = tile
    image = {"index": index} if data.train_files is None else {"file": data.train_files[index]}
    return {**image, "top": top, "left": left, "height": height, "width": width}


def _add_arrays(context: Context[PackageParams], archive: Archive, data: RealData) -> None:
    """Soft labels, and the test set where it is small."""
    for name in (*PLAN_ARRAYS, "logits"):
        archive.add_file(f"labels/{name}.npy", context.folder("labels") / f"{name}.npy")
    if data.test.nbytes <= MAX_TEST_BYTES:
        archive.add_file("test/images.npy", context.folder("data") / "test.npy")
        archive.add_file("test/labels.npy", context.folder("data") / "test_labels.npy")


def _facts(context: Context[PackageParams], data: RealData, name: str, images: list[dict[str, Any]]) -> dict[str, Any]:
    """What manifest.json says, but for the checksums."""
    spec, mean_std = context.params.spec, data.statistics
    return {
        "format": FORMAT,
        "name": name,
        "title": data.title,
        "classes": [
            {"index": label, "name": class_name, "folder": class_folder(label, class_name)}
            for label, class_name in enumerate(data.classes)
        ],
        "resolution": data.resolution,
        "images_per_class": spec.ipc,
        "normalisation": {"mean": mean_std[0], "std": mean_std[1]},
        "seed": spec.seed,
        "spec": spec.model_dump(mode="json"),
        "environment": _manifest(context.folder("images.0")).environment,
        "teachers": [_teacher(folder) for folder in context.folders("teacher")],
        "labels": _labels(context),
        "training": _training(context),
        "scores": _rows(context),
        "has_test": data.test.nbytes <= MAX_TEST_BYTES,
        "images": images,
    }


def _teacher(folder: Path) -> dict[str, Any]:
    facts = teacher_facts(folder)
    return {name: facts[name] for name in ("network", "epochs", "top1_pct", "sha256", "precision")}


def _labels(context: Context[PackageParams]) -> dict[str, Any]:
    on_images = _manifest(context.folder("labels")).result["teacher_top1_pct_on_images"]
    return {**context.params.spec.labels.model_dump(mode="json"), "teacher_top1_pct_on_images": on_images}


def _training(context: Context[PackageParams]) -> dict[str, Any]:
    """What train.py does when it is told nothing: the first student of the card."""
    spec, evaluation = context.params.spec, context.params.spec.evaluation
    return {
        "student": (*evaluation.students, spec.teachers[0].network)[0],
        "runs": evaluation.runs,
        "labels": evaluation.labels[0],
        "epochs": spec.labels.epochs,
        "batch_size": spec.labels.batch_size,
        "cutmix": spec.labels.cutmix,
        "flip": spec.flip,
        "precision": spec.precision,
        **evaluation.model_dump(include={"lr", "eta", "weight_decay", "temperature", "every"}),
    }


def _rows(context: Context[PackageParams]) -> list[dict[str, Any]]:
    """The score card as data: each row with its runs."""
    rows: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for (subject, student, labels, run), folder in zip(context.params.rows, context.folders("row"), strict=True):
        result = _manifest(folder).result
        told = {name: result[name] for name in ("top1_last_pct", "top1_best_pct", "best_epoch", "epochs")}
        rows.setdefault((subject, student, labels), []).append({"run": run, **told})
    return [
        {"subject": subject, "student": student, "labels": labels, "runs": runs}
        for (subject, student, labels), runs in rows.items()
    ]


def _add_code(archive: Archive) -> None:
    """The training code: this engine's own modules, and small stand-ins for two that need more than torch."""
    for module in MODULES:
        archive.add_file(f"engine/{module}.py", CODE / f"{module}.py")
    for path in sorted((CODE / "models").glob("*.py")):
        archive.add_file(f"engine/models/{path.name}", path)
    for name in ("datasets", "errors"):
        archive.add_file(f"engine/{name}.py", CODE / "download" / f"{name}.py")
    archive.add_file("train.py", CODE / "download" / "train.py")


def _manifest(folder: Path) -> Manifest:
    return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
