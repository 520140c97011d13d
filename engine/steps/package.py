"""Make the download: one zip file that explains itself and can be trained from with torch alone.

Leaves fadrm-<key>-ipc<I>.zip. I images per class, K classes, T tiles of an image, S pixels a side.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import Tensor

import engine
from engine import arrays, class_order, png
from engine import device as devices
from engine.archive import Archive, image_file
from engine.card import card
from engine.contents import contents, has_test, manifest
from engine.context import Context, Telling
from engine.data import RealData, images_of, real_data, teachers
from engine.errors import Drained
from engine.events import Event, Progress, Started
from engine.params import PackageParams
from engine.scores import Score, collect
from engine.students import top1_pct

CODE = Path(engine.__file__).parent
MODULES = (  # all that training needs, word for word; they import torch alone, but for decoding (Pillow, with --test)
    "__init__",
    "arrays",
    "augment",
    "decoding",
    "graphs",
    "label_store",
    "labels",
    "layers",
    "losses",
    "networks",
    "pixels",
    "png",
    "precision",
    "randomness",
    "schedule",
    "students",
    "upright",
)
TOLD_EVERY = 100  # images


def package(context: Context[PackageParams]) -> Telling:
    """Pack everything, then look at it as a reader will. An interrupted one begins anew: it takes seconds."""
    data = real_data(context.folder("data"))
    images = images_of(context.folders("images"))[: context.params.ipc]
    count = images.shape[0] * images.shape[1]
    yield Started(total=count, unit="images", device=str(context.device))
    name = f"fadrm-{context.key[:12]}-ipc{context.params.ipc}"
    path = context.out / f"{name}.zip"
    with Archive(path) as archive:
        entries = yield from _add_images(context, archive, images, data)
        _add_arrays(context, archive, data)
        facts = contents(context, data, name, entries)
        facts["files"] = {file: entry.model_dump() for file, entry in archive.files.items()}
        archive.add("manifest.json", json.dumps(facts, indent=1, ensure_ascii=False).encode())
        archive.add("card.md", card(facts, context.params.spec, _scores(context)).encode())
        _add_code(archive)
    recognised = yield from _look_at(context, path, facts)
    return {
        "file": path.name,
        "size_bytes": path.stat().st_size,
        "images": count,
        "teacher_top1_pct": recognised,
        "scores": facts["scores"],
    }


def _scores(context: Context[PackageParams]) -> list[Score]:
    """The score card, out of the rows' evaluate steps."""
    rows = zip(context.params.rows, context.folders("row"), strict=True)
    return collect(
        ((subject, student, labels), manifest(folder).result) for (subject, student, labels, _), folder in rows
    )


def _add_images(
    context: Context[PackageParams], archive: Archive, images: Tensor, data: RealData
) -> Generator[Event, None, list[dict[str, Any]]]:
    """The images in the order of the labels (ipc after ipc, classes ascending); what the manifest says of each."""
    origin = arrays.read(context.folder("patches") / "origin.npy") if "patches" in context.needs else None
    total, entries = images.shape[0] * images.shape[1], []
    for ipc, row in enumerate(images):
        for label, pixels in enumerate(row):
            file = image_file(label, data.classes[label], ipc)
            archive.add(file, png.encode(pixels))
            tiles = [] if origin is None else origin[ipc, label].tolist()  # from noise: no real image
            sources = [_source(tile, data) for tile in tiles]
            entries.append({"file": file, "class": label, "ipc": ipc, "sources": sources})
            if context.stop():
                raise Drained("stopped while packing; it begins anew")
            if len(entries) % TOLD_EVERY == 0 or len(entries) == total:
                yield Progress(done=len(entries) // 2, total=total, unit="images")  # packing is half of it
    return entries


def _source(tile: list[int], data: RealData) -> dict[str, Any]:
    index, top, left, height, width = tile
    image = {"index": index} if data.train_files is None else {"file": data.train_files[index]}
    return {**image, "top": top, "left": left, "height": height, "width": width}


def _add_arrays(context: Context[PackageParams], archive: Archive, data: RealData) -> None:
    """Soft labels, or the networks that make them again; and the test set where it is small."""
    for path in sorted(context.folder("labels").glob("*.npy")):
        archive.add_file(f"labels/{path.name}", path)
    if context.params.spec.labels.recipe_only:
        for index, folder in enumerate(context.folders("teacher")):
            archive.add_file(f"teachers/{index}.safetensors", folder / "weights.safetensors")
    if has_test(data):
        archive.add_file("test/images.npy", context.folder("data") / "test.npy")
        archive.add_file("test/labels.npy", context.folder("data") / "test_labels.npy")


def _add_code(archive: Archive) -> None:
    """The training code: this engine's own modules, and small stand-ins for two that need more than torch."""
    for module in MODULES:
        archive.add_file(f"engine/{module}.py", CODE / f"{module}.py")
    for path in sorted((CODE / "models").glob("*.py")):
        archive.add_file(f"engine/models/{path.name}", path)
    for name in ("__init__", "teachers"):
        archive.add_file(f"engine/download/{name}.py", CODE / "download" / f"{name}.py")
    for name in ("datasets", "errors"):
        archive.add_file(f"engine/{name}.py", CODE / "download" / f"{name}.py")
    archive.add_file("train.py", CODE / "download" / "train.py")


def _look_at(context: Context[PackageParams], path: Path, facts: dict[str, Any]) -> Generator[Event, None, float]:
    """Read the images back and show them to the teachers; what they recognise of them, %. Raises PackageInvalid."""
    data, precision = real_data(context.folder("data")), devices.resolve(context.params.spec.precision, context.device)
    networks = teachers(context.folders("teacher"), context.device)

    def judge(images: Tensor, labels: Tensor) -> float:
        return fmean(
            top1_pct(network, images, labels, statistics=data.statistics, precision=precision, device=context.device)
            for network in networks
        )

    recognised, folders = [], [entry["folder"] for entry in facts["classes"]]
    count = len(facts["images"])
    for share in class_order.recognised_pct(path, folders, judge):
        recognised.append(share)
        if context.stop():
            raise Drained("stopped while looking at the package; it begins anew")
        yield Progress(done=(count + len(recognised) * context.params.ipc) // 2, total=count, unit="images")
    mean = class_order.compare(recognised, facts["labels"]["teacher_top1_pct_on_images"])
    for teacher in facts["teachers"]:
        if not teacher["epochs"]:
            class_order.foreign(teacher["network"], teacher["top1_pct"], mean, len(folders))
    return mean
