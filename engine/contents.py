"""What a download says of itself: the facts of its manifest.json, but for the checksums.

{"name": "fadrm-0123456789ab-ipc10", "classes": [{"index": 0, "name": "tench", "folder": "00000_tench"}, ...], ...}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.archive import class_folder
from engine.context import Context
from engine.data import RealData, teacher_facts
from engine.params import PackageParams
from engine.store import MANIFEST, Manifest

FORMAT = 2
MAX_TEST_BYTES = 64 * 2**20  # of test images that a download holds
RUN_FACTS = ("top1_last_pct", "top1_chosen_pct", "chosen_epoch", "top1_best_pct", "best_epoch", "epochs")


def contents(
    context: Context[PackageParams], data: RealData, name: str, images: list[dict[str, Any]]
) -> dict[str, Any]:
    """images: what is said of each image, in the order of the labels."""
    params, spec, mean_std = context.params, context.params.spec, data.statistics
    return {
        "format": FORMAT,
        "name": name,
        "title": data.title,
        "classes": [
            {"index": label, "name": class_name, "folder": class_folder(label, class_name)}
            for label, class_name in enumerate(data.classes)
        ],
        "resolution": data.resolution,
        "images_per_class": params.ipc,
        "normalisation": {"mean": mean_std[0], "std": mean_std[1]},
        "seed": spec.seed,
        "spec": spec.model_dump(mode="json"),
        "environment": manifest(context.folder("images.0")).environment,
        "teachers": [_teacher(folder) for folder in context.folders("teacher")],
        "labels": _labels(context),
        "training": _training(context),
        "scores": _rows(context),
        "continual": _continual(context),
        "full_data": _full_data(context),
        "has_test": has_test(data),
        "images": images,
    }


def has_test(data: RealData) -> bool:
    """Whether the real test images are small enough to be in a download."""
    return data.test.nbytes <= MAX_TEST_BYTES


def manifest(folder: Path) -> Manifest:
    """What a whole step says of itself."""
    return Manifest.model_validate_json((folder / MANIFEST).read_bytes())


def _teacher(folder: Path) -> dict[str, Any]:
    facts = teacher_facts(folder)
    return {name: facts[name] for name in ("network", "epochs", "top1_pct", "sha256", "precision")}


def _labels(context: Context[PackageParams]) -> dict[str, Any]:
    told = manifest(context.folder("labels")).result
    on_images = {name: told[name] for name in ("teacher_top1_pct_on_images", "precision")}
    return {**context.params.spec.labels.model_dump(mode="json"), **on_images}


def _training(context: Context[PackageParams]) -> dict[str, Any]:
    """What train.py does when it is told nothing: the first student of the card."""
    spec, evaluation = context.params.spec, context.params.spec.evaluation
    told = [manifest(folder).params for folder in context.folders("row")]
    labels: str = evaluation.labels[0]
    epochs: int = spec.labels.epochs
    if told:  # a quick look has hard labels and fewer epochs
        labels, epochs = told[0]["labels"], told[0]["plan"]["epochs"]
    return {
        "student": (*evaluation.students, spec.teachers[0].network)[0],
        "runs": max((row[3] + 1 for row in context.params.rows), default=evaluation.runs),
        "labels": labels,
        "epochs": epochs,
        "batch_size": spec.labels.batch_size,
        "cutmix": spec.labels.cutmix,
        "flip": spec.flip,
        "precision": spec.precision,
        "rates": {params["student"]: {"lr": params["lr"], "eta": params["eta"]} for params in told},
        **evaluation.model_dump(include={"lr", "eta", "weight_decay", "temperature", "every"}),
    }


def _rows(context: Context[PackageParams]) -> list[dict[str, Any]]:
    """The score card as data: each row with its runs."""
    rows: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for (subject, student, labels, run), folder in zip(context.params.rows, context.folders("row"), strict=True):
        result = manifest(folder).result
        told = {name: result.get(name) for name in RUN_FACTS}
        rows.setdefault((subject, student, labels), []).append({"run": run, **told})
    return [
        {"subject": subject, "student": student, "labels": labels, "runs": runs}
        for (subject, student, labels), runs in rows.items()
    ]


def _continual(context: Context[PackageParams]) -> list[dict[str, Any]]:
    """Class-incremental learning: the curve of each run, (classes seen, top-1 in %) group after group."""
    rows: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    named = zip(context.params.continual, context.folders("continual"), strict=True)
    for (subject, student, steps, run), folder in named:
        curve = manifest(folder).result["curve"]
        rows.setdefault((subject, student, steps), []).append({"run": run, "curve": curve})
    return [
        {"subject": subject, "student": student, "steps": steps, "runs": runs}
        for (subject, student, steps), runs in rows.items()
    ]


def _full_data(context: Context[PackageParams]) -> list[dict[str, Any]]:
    """Students trained on all real images: the upper bound."""
    named = zip(context.params.full, context.folders("full"), strict=True)
    return [{"student": student, "top1_pct": teacher_facts(folder)["top1_pct"]} for student, folder in named]
