"""A teacher as everybody trains one: a DataLoader, a padded crop and a flip per image, SGD, and a test after each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import functional as TF

from benchmarks.plain.files import Files, loader
from benchmarks.planted import steps_of, store_of, teacher_spec
from benchmarks.task import Task
from engine import arrays
from engine.augment import draw_flips
from engine.datasets import IMAGENET
from engine.models import build
from engine.randomness import generator, seed_of
from engine.schedule import cosine_lr
from engine.spec import Teacher

SHIFT = 1 / 8
TEST_BATCH = 100


def teach(task: Task) -> Iterator[int]:
    """Epoch after epoch; tells images after each, tested."""
    step, store, workload, spec = steps_of(task)[0], store_of(task), task.workload, teacher_spec(task.workload)
    data = store.step(step.needs["data"])
    paths, labels = _files(task, data, "train"), arrays.read(data / "train_labels.npy")
    tests, test_labels = _files(task, data, "test"), arrays.read(data / "test_labels.npy")
    model = build(
        spec.network, num_classes=workload.classes, resolution=workload.resolution, seed=seed_of(spec.seed, "teach")
    ).to(task.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=spec.lr, momentum=0.9, weight_decay=spec.weight_decay)
    half = task.device.type == "cuda" and not task.checking
    scaler, reach = torch.amp.GradScaler(task.device.type, enabled=half), round(workload.resolution * SHIFT)
    whole, rest = divmod(len(paths), spec.batch_size)
    batches = max(1, whole + (rest > 1))
    for epoch in range(spec.epochs):
        order = torch.randperm(len(paths), generator=generator(spec.seed, "teach", epoch))
        parts = torch.split(order, spec.batch_size)[:batches]
        moves = _moves(parts, spec, epoch * batches, reach) if task.checking else None
        total, model = 0.0, model.train()
        looked = loader(Files(paths, _Look(reach, moves)), batch_sampler=[part.tolist() for part in parts])
        for index, (images, part) in enumerate(zip(looked, parts, strict=True)):
            for group in optimizer.param_groups:
                group["lr"] = cosine_lr(epoch * batches + index, steps=spec.epochs * batches, lr=spec.lr)
            optimizer.zero_grad()
            with torch.autocast(task.device.type, dtype=torch.float16, enabled=half):
                loss = F.cross_entropy(model(images.to(task.device)), labels[part].to(task.device))
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()
            total += loss.item()
        task.tell("teach.loss", total / batches)
        _test(task, model, tests, test_labels)
        yield (epoch + 1) * len(paths)


class _Look:
    """Black around the image, a random part of the same size, mirrored or not. moves: those of the engine, by image."""

    def __init__(self, reach: int, moves: dict[int, tuple[int, int, bool]] | None) -> None:
        self._reach, self._moves = reach, moves

    def __call__(self, image: Image.Image, index: int) -> Tensor:
        if self._moves is None:
            down, right = (torch.randint(-self._reach, self._reach + 1, (2,))).tolist()
            flip = bool(torch.rand(()) < 0.5)
        else:
            down, right, flip = self._moves[index]
        padded = TF.pad(TF.hflip(image) if flip else image, [self._reach])
        moved = TF.crop(padded, self._reach - down, self._reach - right, image.height, image.width)
        normal: Tensor = TF.normalize(TF.to_tensor(moved), *IMAGENET)
        return normal


def _moves(parts: Any, spec: Teacher, first: int, reach: int) -> dict[int, tuple[int, int, bool]]:
    """What the engine draws for an epoch whose first batch is the `first` of all."""
    moves = {}
    for step, part in enumerate(parts, first):
        chance = generator(spec.seed, "teach", "views", step)
        flips = draw_flips(len(part), generator=chance).tolist()
        offsets = torch.randint(-reach, reach + 1, (len(part), 2), generator=chance).tolist()
        for image, flip, (down, right) in zip(part.tolist(), flips, offsets, strict=True):
            moves[image] = (down, right, flip)
    return moves


def _test(task: Task, model: nn.Module, paths: list[Path], labels: Tensor) -> float:
    model.eval()
    hits = 0
    images = loader(Files(paths, lambda image, _: TF.normalize(TF.to_tensor(image), *IMAGENET)), batch_size=TEST_BATCH)
    with torch.no_grad():
        for batch, known in zip(images, torch.split(labels, TEST_BATCH), strict=True):
            hits += int((model(batch.to(task.device)).argmax(1).cpu() == known).sum())
    return hits / len(labels)


def _files(task: Task, data: Path, split: str) -> list[Path]:
    """The planted images as PNG files."""
    folder = task.root / f"files-{data.name}-{split}"
    images = arrays.read(data / f"{split}.npy")
    if not folder.is_dir():
        folder.mkdir()
        for index, image in enumerate(images):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{index:06d}.png")
    return sorted(folder.iterdir())
