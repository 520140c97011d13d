"""FKD files, as the relabelling of the SRe2L family writes them: one a batch, with all that it shows.

    images/<class>/<ipc>.png             for torchvision's ImageFolder
    labels/epoch_<e>/batch_<b>.tar       torch.save of [coords, flip, mix_index, mix_lam, mix_bbox, logits]
    order.pt                             (E, N) int64: the image, by ImageFolder's index, at each position of an epoch

Their readers draw the order again from RandomSampler and seed 42; here it is the job's own, so they must take order.pt.
E epochs, N images, n images of a batch, K classes, S pixels a side.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.archive import Archive, image_file
from engine.export.material import Material
from engine.label_store import LabelStore
from engine.labels import LabelPlan, mix_shares


def fkd(material: Material, path: Path) -> Iterator[int]:
    """A zip file of images and batches; yields after each epoch."""
    labels, ipcs, orders = material.params.labels, len(material.images), []
    store = LabelStore.open(
        material.labels,
        classes=len(material.classes),
        batch_size=labels.batch_size,
        seed=material.params.seed,
    )
    with Archive(path) as archive:
        for label, ipc, data in material.files():
            archive.add(image_file(label, material.classes[label], ipc), data)
        for epoch in range(labels.epochs):
            plan, logits = store.epoch(epoch)
            orders.append(_folder_index(plan.order, ipcs, len(material.classes)))
            for index, batch in enumerate(_batches(plan, logits, material)):
                archive.add(f"labels/epoch_{epoch}/batch_{index}.tar", _saved(batch))
            yield epoch + 1
        archive.add("order.pt", _saved(torch.stack(orders)))


def _batches(plan: LabelPlan, logits: Tensor, material: Material) -> Iterator[list[Any]]:
    """coords (n, 4): top, left, height, width as shares of the side; mix_lam: the share of a batch's own images."""
    side, mixed = material.images.shape[-1], material.params.labels.cutmix
    shares = 1 - mix_shares(plan, side)
    for index, batch in enumerate(plan.batches):
        mix = [plan.partners[batch].long(), float(shares[index]), plan.mix_boxes[index].tolist()]
        yield [
            plan.boxes[batch] / side,
            plan.flips[batch].clone(),
            *(mix if mixed else (None, None, None)),
            logits[batch].half().clone(),  # a clone: torch.save writes the whole of what a slice belongs to
        ]


def _folder_index(order: Tensor, ipcs: int, classes: int) -> Tensor:
    """Index in the labels' order (ipc after ipc) -> index in ImageFolder's (class after class)."""
    return order.long() % classes * ipcs + order.long() // classes


def _saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()
