"""The teachers' soft labels for everything that a student will see: each epoch's crops, flips and cut-mixes.

Leaves the plan of each epoch and its logits as the spec wants them kept, in the order of the plan's positions: see
`engine.label_store`. Of labels that are made again wherever they are needed (recipe_only), the plans alone.
E epochs kept, N images (ipc after ipc, classes ascending), B batches, K classes.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from engine import device as devices
from engine.checkpoint import Checkpoint, opened_array, place
from engine.context import Context, Result, State, Telling
from engine.data import RealData, fitted, images_of, real_data, teacher_facts, teachers
from engine.events import Event, Log, Progress, Started
from engine.label_store import kept, shapes
from engine.labels import LabelPlan, batch_slices, draw_plan, labelled
from engine.params import RelabelParams
from engine.precision import Precision
from engine.spec import Labels, stored_epochs
from engine.store import sync
from engine.students import top1_pct

SURE = 5  # times chance: a teacher this good on real images ...
LOST = 2  # ... that recognises these images less often than so many times chance, has its classes in another order


def relabel(context: Context[RelabelParams]) -> Telling:
    """Epoch after epoch; each is drawn, rendered and labelled by itself."""
    labelling = _Labelling.begin(context, context.resumed())
    epochs = stored_epochs(context.params.labels)
    yield Started(total=epochs, unit="epochs", resumed_at=labelling.epoch, device=str(context.device))
    while labelling.epoch < epochs:
        labelling.label()
        yield Progress(done=labelling.epoch, total=epochs, unit="epochs")
        if labelling.epoch < epochs:
            yield from context.pause(labelling.epoch, labelling.state)
    place(sorted(labelling.folder.iterdir()), context.out)
    return (yield from _judge(context, labelling))


@dataclass(slots=True, kw_only=True)
class _Labelling:
    """Labels under way: on the disk, where the next attempt finds them."""

    params: RelabelParams
    device: torch.device
    data: RealData
    images: Tensor  # (N, 3, S, S) uint8
    teachers: list[nn.Module]
    precision: Precision
    folder: Path
    arrays: dict[str, Tensor]
    epoch: int = 0  # done

    @classmethod
    def begin(cls, context: Context[RelabelParams], found: Checkpoint | None) -> Self:
        """Before the first epoch, or where a checkpoint was taken."""
        data = real_data(context.folder("data"))
        precision = devices.resolve(context.params.precision, context.device)
        images = fitted(images_of(context.folders("images"))[: context.params.take].flatten(0, 1), context.device)
        folder = context.checkpoints.large_files(found, exact=False)
        shapes = _shapes(len(images), data.num_classes, context.params.labels)
        return cls(
            params=context.params,
            device=context.device,
            data=data,
            images=images,
            teachers=teachers(context.folders("teacher"), context.device, precision),
            precision=precision,
            folder=folder,
            arrays={
                name: opened_array(folder / f"{name}.npy", shape, dtype, going_on=found is not None)
                for name, (shape, dtype) in shapes.items()
            },
            epoch=0 if found is None else found.facts["epoch"],
        )

    def label(self) -> None:
        """Draw and label one epoch."""
        labels, statistics = self.params.labels, self.data.statistics
        side, seed, flip = self.data.resolution, self.params.seed, self.params.flip
        plan = drawn(labels, len(self.images), self.epoch, side=side, seed=seed, flip=flip)
        for name, values in plan.tensors().items():
            self.arrays[name][self.epoch] = values
        if not labels.recipe_only:
            logits = labelled(
                self.teachers,
                self.images,
                plan,
                statistics=statistics,
                batch_norm=labels.statistics,
                precision=self.precision,
                device=self.device,
            )
            for name, values in kept(logits.cpu(), labels.top_k).items():  # a GPU is waited for once an epoch
                self.arrays[name][self.epoch] = values
        self.epoch += 1

    def state(self) -> State:
        """How many epochs are safe on the disk."""
        for file in self.folder.iterdir():
            sync(file)
        return {}, {"epoch": self.epoch}


def drawn(labels: Labels, images: int, epoch: int, *, side: int, seed: int, flip: bool) -> LabelPlan:
    """The batches of an epoch over so many images of side x side px, for teachers and students alike."""
    return draw_plan(
        images,
        batch_size=labels.batch_size,
        side=side,
        seed=seed,
        epoch=epoch,
        flip=flip,
        cutmix=labels.cutmix,
    )


def _shapes(images: int, classes: int, labels: Labels) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and type of each array: the plan's, and the logits'."""
    batches, epochs = len(batch_slices(images, labels.batch_size)), stored_epochs(labels)
    stored = {} if labels.recipe_only else shapes(images, classes, labels.top_k)
    return {
        "order": ((epochs, images), torch.int32),
        "boxes": ((epochs, images, 4), torch.int16),
        "flips": ((epochs, images), torch.bool),
        "partners": ((epochs, images), torch.int16),
        "mix_boxes": ((epochs, batches, 4), torch.int16),
        **{name: ((epochs, *shape), dtype) for name, (shape, dtype) in stored.items()},
    }


def _judge(context: Context[RelabelParams], labelling: _Labelling) -> Generator[Event, None, Result]:
    """The figures, and a warning when the teachers do not see in the images what their labels say."""
    classes = labelling.data.num_classes
    facts = [teacher_facts(folder) for folder in context.folders("teacher")]
    labels = torch.arange(classes).repeat(len(labelling.images) // classes)
    on_images = [
        top1_pct(
            model,
            labelling.images,
            labels,
            statistics=labelling.data.statistics,
            precision=labelling.precision,
            device=context.device,
        )
        for model in labelling.teachers
    ]
    for fact, accuracy in zip(facts, on_images, strict=True):
        if accuracy < LOST * 100 / classes and fact["top1_pct"] > SURE * 100 / classes:
            yield Log(
                level="warning",
                message=f"Teacher {fact['network']} reaches {fact['top1_pct']:.1f} % on real images, but recognises only "
                f"{accuracy:.1f} % of these: are its classes in the same order as the images'?",
            )
    return {
        "epochs": labelling.epoch,
        "images": len(labelling.images),
        "teacher_top1_pct_on_images": sum(on_images) / len(on_images),
        "precision": labelling.precision,
    }
