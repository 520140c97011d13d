"""Soft labels as the authors make them: a DataLoader, teachers in training mode on half batches, a file per batch.

Source: FADRM relabel.py, utils_fkd.py. N images, n of a batch, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import RandomResizedCrop

from benchmarks.plain.files import Files, cut_mixed, loader, seen
from benchmarks.planted import SEED, labels_of, steps_of, store_of
from benchmarks.task import Task
from engine.data import teacher
from engine.labels import LabelPlan, draw_plan

SCALE, RATIO = [0.08, 1.0], [3 / 4, 4 / 3]


def label(task: Task) -> Iterator[int]:
    """Epoch after epoch; tells images after each batch."""
    step, store, labels = steps_of(task)[0], store_of(task), labels_of(task.workload)
    models = [teacher(store.step(key), task.device) for role, key in step.needs.items() if role.startswith("teacher.")]
    models = [model.to(memory_format=torch.contiguous_format).train() for model in models]
    paths = sorted(store.step(step.needs["images.0"]).glob("*.png"))
    side, done = task.workload.resolution, 0
    for epoch in range(labels.epochs):
        plan = draw_plan(len(paths), batch_size=labels.batch_size, side=side, seed=SEED, epoch=epoch)
        replayed = plan if task.checking else None
        folder = task.root / "plain-labels" / f"epoch_{epoch}"
        folder.mkdir(parents=True, exist_ok=True)
        for index, batch in enumerate(_batches(paths, side, plan, replayed)):
            logits = _label_batch(task, models, batch, folder / f"batch_{index}.tar", replayed, index)
            if task.checking:
                task.tell("logits", *logits.flatten().tolist())
            done += len(logits)
            yield done


def _batches(paths: list[Path], side: int, plan: LabelPlan, replayed: LabelPlan | None) -> Any:
    """A DataLoader of (images, boxes, flips), in the order of the plan."""
    order = plan.order.tolist()
    position = {image: place for place, image in enumerate(order)}

    def look(image: Image.Image, index: int) -> tuple[Tensor, Tensor, bool]:
        if replayed is None:
            box, flip = RandomResizedCrop.get_params(image, SCALE, RATIO), bool(torch.rand(()) < 0.5)
        else:
            box = tuple(replayed.boxes[position[index]].tolist())
            flip = bool(replayed.flips[position[index]])
        return seen(image, (box, flip), side), torch.tensor(box), flip

    batches = [order[part] for part in plan.batches]
    return loader(Files(paths, look), batch_sampler=batches)


def _label_batch(
    task: Task, models: list[Any], batch: Any, path: Path, replayed: LabelPlan | None, index: int
) -> Tensor:
    """(n, K) logits as they were stored."""
    images, boxes, flips = batch
    side = task.workload.resolution
    if replayed is None:
        partners, box = torch.randperm(len(images)), _random_box(side)
    else:
        partners = replayed.partners[replayed.batches[index]].long()
        box = replayed.mix_boxes[index].tolist()
    images = cut_mixed(images.to(task.device), partners.to(task.device), box)
    half = len(images) // 2
    with torch.no_grad():
        logits = [torch.cat([model(images[:half]), model(images[half:])]) for model in models]
    mean = torch.stack(logits).mean(0).half().cpu()
    share = (box[2] - box[0]) * (box[3] - box[1]) / side**2
    torch.save([boxes, flips, partners, share, box, mean], path)
    return mean


def _random_box(side: int) -> list[int]:
    """CutMix's rectangle, its share drawn as Beta(1, 1)."""
    share = torch.distributions.Beta(1.0, 1.0).sample().item()
    half = int(side * (1 - share) ** 0.5) // 2
    row, column = torch.randint(side, (2,)).tolist()
    return [max(row - half, 0), max(column - half, 0), min(row + half, side), min(column + half, side)]
