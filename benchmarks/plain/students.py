"""A student as the authors train it: a DataLoader that opens image files and one label file a batch, in fp32.

Source: FADRM train_fkd.py. N images of an epoch, n of a batch, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from benchmarks.plain.files import cut_mixed, loader, seen
from benchmarks.planted import SEED, labels_of, steps_of, store_of
from benchmarks.task import Task
from engine import arrays
from engine.labels import PLAN_ARRAYS, LabelPlan
from engine.models import build
from engine.randomness import seed_of
from engine.schedule import student_lr

TEMPERATURE, LR, ETA, DECAY = 20.0, 0.001, 2.0, 0.01


class Labelled(Dataset[Any]):
    """One item a batch: opens its label file and its images, and makes of them what was labelled."""

    def __init__(self, images: list[Path], order: list[list[int]], folder: Path, side: int) -> None:
        self._images, self._order, self._folder, self._side = images, order, folder, side

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        boxes, flips, partners, _, box, logits = torch.load(self._folder / f"batch_{index}.tar")
        images = []
        for place, image_index in enumerate(self._order[index]):
            with Image.open(self._images[image_index]) as image:
                view = tuple(boxes[place].tolist()), bool(flips[place])
                images.append(seen(image.convert("RGB"), view, self._side))
        return cut_mixed(torch.stack(images), partners, box), logits


def train_student(task: Task) -> Iterator[int]:
    """Epoch after epoch; tells images after each batch."""
    step, store, workload = steps_of(task)[0], store_of(task), task.workload
    planted = store.step(step.needs["labels"])
    soft = {name: arrays.read(planted / f"{name}.npy") for name in (*PLAN_ARRAYS, "logits")}
    images = sorted(store.step(step.needs["images.0"]).glob("*.png"))
    seed = seed_of(SEED, "student", 0)
    model = build(workload.networks[0], num_classes=workload.classes, resolution=workload.resolution, seed=seed)
    model.to(task.device).train()
    optimizer = _optimizer(model)
    done = 0
    for epoch in range(labels_of(workload).epochs):
        plan = LabelPlan.of({name: soft[name][epoch] for name in PLAN_ARRAYS}, batch_size=workload.batch)
        folder = _label_files(task, plan, soft["logits"][epoch], epoch)
        order = [plan.order[part].tolist() for part in plan.batches]
        for group in optimizer.param_groups:
            group["lr"] = student_lr(epoch, epochs=workload.epochs, lr=LR, eta=ETA)
        total = 0.0
        for seen_images, logits in loader(Labelled(images, order, folder, workload.resolution), batch_size=None):
            loss = _descend(model, optimizer, seen_images.to(task.device), logits.to(task.device))
            total += loss.item()  # the authors' meters wait for the device at each batch
            done += len(logits)
            yield done
        task.tell("evaluate.loss", total / len(order))


def _descend(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, logits: Tensor) -> Tensor:
    """Two half batches, one step; returns the mean of their losses."""
    half = len(images) // 2
    optimizer.zero_grad()
    losses = []
    for part in (slice(0, half), slice(half, len(images))):
        told = F.log_softmax(model(images[part]) / TEMPERATURE, 1)
        target = F.softmax(logits[part].float() / TEMPERATURE, 1)
        loss = F.kl_div(told, target, reduction="batchmean")
        (loss / 2).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    optimizer.step()
    return torch.stack(losses).mean()


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    decayed = [value for name, value in model.named_parameters() if value.dim() >= 2 and "weight" in name]
    others = [value for name, value in model.named_parameters() if not (value.dim() >= 2 and "weight" in name)]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}], lr=LR
    )


def _label_files(task: Task, plan: LabelPlan, logits: Tensor, epoch: int) -> Path:
    """The planted labels of one epoch as a file per batch."""
    workload = task.workload
    folder = task.root / f"label-files-{workload.seen}-{workload.resolution}" / f"epoch_{epoch}"
    if folder.is_dir():
        return folder
    folder.mkdir(parents=True)
    for index, part in enumerate(plan.batches):
        box = plan.mix_boxes[index].tolist()
        share = (box[2] - box[0]) * (box[3] - box[1]) / workload.resolution**2
        boxes, flips, partners = plan.boxes[part].clone(), plan.flips[part].clone(), plan.partners[part].long()
        torch.save([boxes, flips, partners, share, box, logits[part].clone()], folder / f"batch_{index}.tar")
    return folder
