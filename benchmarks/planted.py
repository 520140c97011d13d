"""What both sides work on, made up: a store with whole steps (data, teachers, patches, images, labels), and image files.

Networks are fresh, but their batch norms remember such images, as trained ones do: the numbers stay tame.
N images, K classes, I images per class, S pixels a side.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.task import Task
from benchmarks.workloads import Workload
from engine import arrays
from engine.datasets import IMAGENET, describe
from engine.labels import draw_plan
from engine.methods import Recipe
from engine.models import build
from engine.params import EvaluateParams, PrepareParams, RecoverParams, RelabelParams, TeachParams
from engine.plan import Step, StepKind
from engine.randomness import generator
from engine.schedule import default_jitter, stage_sizes
from engine.sources import Folder
from engine.spec import Labels, Teacher, sha256_of
from engine.store import Store, write_manifest

SEED = 0
TEST_IMAGES = 64
DISTINCT_FILES = 100
PHOTO_PX = 256
JPEG_QUALITY = 90
# Adam's first steps are signs of gradients: where one is nearly 0, rounding decides. Small steps keep that from growing.
CHECKED_LR = 0.01


def store_of(task: Task) -> Store:
    return Store(task.root / "store")


def recipe_of(task: Task) -> Recipe:
    """FADRM's. Stages of one size, so that a measurement that ends early is of that size; of two where numbers count."""
    workload = task.workload
    stages = 2 if task.checking else 4
    alone = (workload.resolution,) * stages
    return Recipe(
        budgets=(workload.steps // stages,) * stages,
        sizes=stage_sizes(workload.resolution, stages) if task.checking else alone,
        alpha=0.5,
        lr=CHECKED_LR if task.checking else 0.25,
        jitter=default_jitter(workload.resolution),
        batch=workload.batch,
    )


def labels_of(workload: Workload) -> Labels:
    return Labels(epochs=workload.epochs, batch_size=workload.batch)


def steps_of(task: Task) -> list[Step]:
    """The step that is measured (several for `workers`), of which all that it needs is planted."""
    kind = task.workload.kind
    if kind in ("recover", "service"):
        return [_recover(task, 0, task.workload.ipc)]
    if kind == "workers":
        return [_recover(task, index, index + 1) for index in range(task.workload.ipc)]
    return [{"labels": _relabel, "student": _evaluate, "teach": _teach, "read": _prepare}[kind](task)]


def _precision(task: Task) -> str:
    return "fp32" if task.checking else "auto"


def _recover(task: Task, start: int, stop: int) -> Step:
    params = RecoverParams.model_validate(
        {"recipe": recipe_of(task), "ipc_start": start, "ipc_stop": stop}
        | {"flip": True, "seed": SEED, "precision": _precision(task)}
    )
    return _step(StepKind.RECOVER, params, {"data": _data(task), "patches": _images(task)} | _teachers(task))


def _relabel(task: Task) -> Step:
    params = RelabelParams.model_validate(
        {"labels": labels_of(task.workload), "take": task.workload.ipc, "flip": True, "seed": SEED}
        | {"precision": _precision(task)}
    )
    return _step(StepKind.RELABEL, params, {"data": _data(task), "images.0": _images(task)} | _teachers(task))


def _evaluate(task: Task) -> Step:
    workload = task.workload
    params = EvaluateParams.model_validate(
        {"student": workload.networks[0], "run": 0, "labels": "soft", "plan": labels_of(workload)}
        | {"take": workload.ipc, "valid_per_class": 0, "lr": 0.001, "eta": 2.0, "weight_decay": 0.01}
        | {"temperature": 20.0, "every": workload.epochs, "flip": True, "seed": SEED, "precision": _precision(task)}
    )
    needs = {"data": _data(task), "images.0": _images(task), "labels": _soft_labels(task)}
    return _step(StepKind.EVALUATE, params, needs)


def teacher_spec(workload: Workload) -> Teacher:
    return Teacher(
        network=workload.networks[0], epochs=workload.epochs, batch_size=min(workload.batch, workload.images)
    )


def _teach(task: Task) -> Step:
    params = TeachParams(teacher=teacher_spec(task.workload), flip=True, precision=_precision(task))  # type: ignore[arg-type]
    return _step(StepKind.TEACH, params, {"data": _data(task)})


def _prepare(task: Task) -> Step:
    spec = Folder(path=str(photos(task)), resolution=task.workload.resolution)
    params = PrepareParams(dataset=spec, resolution=task.workload.resolution, digest=describe(spec).digest)
    return _step(StepKind.PREPARE, params, {})


def _step(kind: StepKind, params: Any, needs: dict[str, str]) -> Step:
    told = params.model_dump(mode="json")
    key = sha256_of([kind, told, needs])
    return Step(key=key, kind=kind, title=kind, params=told, needs=needs, flop=0.0, size_bytes=0)


def needed(task: Task) -> list[Step]:
    """The planted steps, as steps: whole already."""
    store, found = store_of(task), {}
    for step in steps_of(task):
        for key in step.needs.values():
            manifest = store.manifest(key)
            found[key] = Step(
                key=key, kind=StepKind(manifest.kind), title=manifest.kind, params={}, needs={}, flop=0.0, size_bytes=0
            )
    return list(found.values())


def _planted(task: Task, kind: StepKind, facts: list[Any], fill: Callable[[Path], None]) -> str:
    """The key of a whole step of these facts, which `fill` makes where it is not there yet."""
    store, key = store_of(task), sha256_of(["planted", kind, facts])
    if not store.is_whole(key):
        out = store.attempt(key, 0)
        fill(out)
        write_manifest(out, key=key, kind=kind, params={}, needs={}, result={}, environment={}, seconds=0.0)
        store.publish(key, out)
        store.forget_work(key)
    return key


def _data(task: Task) -> str:
    workload = task.workload
    count = workload.images or workload.classes

    def fill(out: Path) -> None:
        for split, images in (("train", count), ("test", TEST_IMAGES)):
            labels = torch.arange(images) % workload.classes
            arrays.write(out / f"{split}.npy", made_up(images, workload.resolution, split))
            arrays.write(out / f"{split}_labels.npy", labels)
        mean, std = IMAGENET
        classes = [f"class {label}" for label in range(workload.classes)]
        facts = {"title": "Made up", "classes": classes, "mean": mean, "std": std, "resolution": workload.resolution}
        (out / "data.json").write_text(json.dumps(facts | {"train_files": None, "test_files": None}))

    return _planted(task, StepKind.PREPARE, [count, workload.classes, workload.resolution], fill)


def _teachers(task: Task) -> dict[str, str]:
    return {f"teacher.{index}": _teacher(task, name) for index, name in enumerate(task.workload.networks)}


def _teacher(task: Task, name: str) -> str:
    workload = task.workload
    classes = [f"class {label}" for label in range(workload.classes)]

    def fill(out: Path) -> None:
        model = build(name, num_classes=workload.classes, resolution=workload.resolution, seed=SEED)
        _accustom(model, workload.resolution)
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, out / "weights.safetensors")
        facts = {"network": name, "top1_pct": 0.0, "classes": classes, "resolution": workload.resolution}
        (out / "teacher.json").write_text(json.dumps(facts))

    return _planted(task, StepKind.TEACH, [name, workload.classes, workload.resolution], fill)


def _accustom(model: nn.Module, side: int) -> None:
    """Let batch norms remember what made-up images are like inside the network."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    mean, std = (torch.tensor(values)[:, None, None] for values in IMAGENET)
    with torch.no_grad():
        model.train()((made_up(16, side, "accustom").float() / 255 - mean) / std)


def _images(task: Task) -> str:
    """Images (I, K, 3, S, S), as an array and as PNG files, which the plain path reads."""
    workload = task.workload
    shape = (workload.ipc, workload.classes, 3, workload.resolution, workload.resolution)

    def fill(out: Path) -> None:
        images = made_up(workload.ipc * workload.classes, workload.resolution, "images")
        arrays.write(out / "images.npy", images.view(shape))
        for index, image in enumerate(images):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(out / f"{index:06d}.png")

    return _planted(task, StepKind.SELECT, list(shape), fill)


def _soft_labels(task: Task) -> str:
    """Plans as the engine draws them, and logits of chance."""
    workload = task.workload
    count, facts = workload.seen, [workload.seen, workload.classes, workload.resolution, workload.epochs]

    def fill(out: Path) -> None:
        plans = [
            draw_plan(count, batch_size=workload.batch, side=workload.resolution, seed=SEED, epoch=epoch).tensors()
            for epoch in range(workload.epochs)
        ]
        for name in plans[0]:
            arrays.write(out / f"{name}.npy", torch.stack([plan[name] for plan in plans]))
        chance = generator(SEED, "logits")
        logits = 4 * torch.randn(workload.epochs, count, workload.classes, generator=chance)
        arrays.write(out / "logits.npy", logits.half())

    return _planted(task, StepKind.RELABEL, facts, fill)


def made_up(count: int, side: int, name: str) -> Tensor:
    """(N, 3, S, S) uint8: soft clouds with a little grain. They depend on their number, size and name alone."""
    chance = generator(SEED, name, count, side)
    coarse = torch.rand(count, 3, 5, 5, generator=chance)
    clouds = F.interpolate(coarse, (side, side), mode="bicubic", align_corners=False)
    grain = torch.rand(count, 3, side, side, generator=chance) * 0.15
    return ((clouds * 0.85 + grain).clamp(0, 1) * 255).to(torch.uint8)


def photos(task: Task) -> Path:
    """A folder of JPEG files in ten classes, of which a hundred are distinct."""
    count = task.workload.images
    folder = task.root / f"photos-{count}"
    if folder.is_dir():
        return folder
    encoded = []
    for image in made_up(min(count, DISTINCT_FILES), PHOTO_PX, "photos"):
        memory = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(memory, "JPEG", quality=JPEG_QUALITY)
        encoded.append(memory.getvalue())
    for index in range(count):
        split = "test" if index // 10 % 5 == 4 else "train"
        path = folder / split / f"class{index % 10}" / f"{index:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded[index % len(encoded)])
    return folder
