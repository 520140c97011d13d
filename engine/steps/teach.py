"""Train one teacher on the real images: SGD or AdamW, one cosine to 0, cross-entropy. Or take one that was trained before.

Leaves weights.safetensors and teacher.json. N images, B images of a batch, S pixels a side.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from engine import device as devices
from engine.augment import crop_pixels, draw_boxes, draw_flips, draw_mix_box, paste
from engine.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer, taken_from, under
from engine.context import Context, Result, State, Telling
from engine.data import RealData, batch_of, real_data, resident
from engine.errors import DatasetInvalid, Diverged, WeightsInvalid
from engine.events import Event, Metric, Progress, Started
from engine.graphs import Replays, rate, set_rate
from engine.losses import mixed_cross_entropy
from engine.models import build
from engine.networks import NETWORKS
from engine.params import TeachParams
from engine.pixels import normalised
from engine.precision import Precision, computing, gradient_scaler, prepared, restore_scaler, scaler_state, sent
from engine.randomness import generator, repeatable, seed_of
from engine.schedule import cosine_lr
from engine.sources import UPLOADED_WEIGHTS
from engine.spec import TORCHVISION, TRAINED, Teacher
from engine.store import sha256_of_file
from engine.students import top1_pct
from engine.weights import filled, imagenet, read

SHIFT = 1 / 8  # of the side: how far a padded crop may move an image
MOMENTUM = 0.9


def teach(context: Context[TeachParams]) -> Telling:
    """Train, test after each epoch, and keep the last weights. Weights from elsewhere are tested once."""
    training = _Training.begin(context)
    if context.params.teacher.weights != TRAINED:
        yield from _take(context, training)
        return _leave(context, training)
    found = context.resumed()
    if found is not None:
        training.restore(found)
    epochs = context.params.teacher.epochs
    yield Started(total=epochs, unit="epochs", resumed_at=training.epoch, device=str(context.device))
    while training.epoch < epochs:
        yield from _epoch(context, training)
    return _leave(context, training)


def _epoch(context: Context[TeachParams], training: _Training) -> Iterator[Event]:
    """Finish the epoch that training is in, and test after it."""
    order = training.order()
    while training.batch < training.batches:
        training.descend(order)
        if training.batch < training.batches:
            yield from context.pause(training.epoch, training.state, rank=training.step)
    loss = training.close_epoch()
    yield Metric(x=training.epoch - 1, values={"teach.loss": loss, "teach.top1": training.test()})
    yield Progress(done=training.epoch, total=training.teacher.epochs, unit="epochs")
    if training.epoch < training.teacher.epochs:
        yield from context.pause(training.epoch, training.state, rank=training.step)


def _take(context: Context[TeachParams], training: _Training) -> Iterator[Event]:
    """Put weights from elsewhere into the network, and test them."""
    yield Started(total=1, unit="networks", device=str(context.device))
    network, data = training.teacher.network, training.data
    state, source = _brought(context.params, data, context.uploads)
    model = filled(network, state, num_classes=data.num_classes, resolution=data.resolution, source=source)
    training.model.load_state_dict(model.state_dict())
    yield Metric(x=0, values={"teach.top1": training.test()})
    yield Progress(done=1, total=1, unit="networks")


def _place(teacher: Teacher, uploads: Path) -> Path:
    """The file that a teacher's weights are to be read from. Raises WeightsInvalid for an upload that is gone."""
    if teacher.upload is None:
        return Path(teacher.weights)
    path = uploads / teacher.upload / UPLOADED_WEIGHTS
    if not path.is_file():
        raise WeightsInvalid(
            f"The uploaded weights {teacher.upload} are not here any more.",
            hint="Send the same file again, then retry.",
        )
    return path


def _brought(params: TeachParams, data: RealData, uploads: Path) -> tuple[dict[str, Tensor], str]:
    """The weights that a teacher is to have, and where they are from. Raises WeightsInvalid."""
    teacher = params.teacher
    if teacher.weights == TORCHVISION:
        reason = NETWORKS[teacher.network].imagenet_misfit(data.resolution, data.num_classes)
        if reason:
            raise WeightsInvalid(f"{reason}.", hint="Train the teacher on these images, or bring weights that were.")
        return imagenet(teacher.network), "torchvision's file"
    path = _place(teacher, uploads)
    state = read(path)
    if params.weights_sha256 not in (None, sha256_of_file(path)):
        raise WeightsInvalid(f"{path} has changed since the job was planned.", hint="Submit the job again.")
    return state, "the upload" if teacher.upload else str(path)


def _leave(context: Context[TeachParams], training: _Training) -> Result:
    """Write the weights and what there is to know of them."""
    weights = context.out / "weights.safetensors"
    save_file({name: value.cpu().contiguous() for name, value in training.model.state_dict().items()}, weights)
    result = {
        "network": training.teacher.network,
        "top1_pct": training.top1_pct,
        "weights": training.teacher.weights,
        "epochs": training.epoch,
        "sha256": sha256_of_file(weights),
        "precision": training.precision,
    }
    facts = result | {"classes": list(training.data.classes), "resolution": training.data.resolution}
    (context.out / "teacher.json").write_text(json.dumps(facts, ensure_ascii=False))
    return result


@dataclass(slots=True, kw_only=True)
class _Training:
    """A teacher under training. Its state can be taken out and put back between any two batches."""

    teacher: Teacher
    data: RealData
    train: Tensor  # (N, 3, S, S) uint8, on the device where it fits
    test_images: Tensor
    flip: bool
    precision: Precision
    device: torch.device
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    replays: Replays
    loss_sum: Tensor  # () of this epoch's batches, nats
    epoch: int = 0
    batch: int = 0  # of this epoch, done
    top1_pct: float = 0.0

    @classmethod
    def begin(cls, context: Context[TeachParams]) -> Self:
        """Fresh weights, on the device."""
        params, device, folder = context.params, context.device, context.folder("data")
        data, teacher = real_data(folder), params.teacher
        if len(data.train) < 2:
            raise DatasetInvalid("One training image teaches nothing.", hint="Add images.")
        fresh = build(
            teacher.network,
            num_classes=data.num_classes,
            resolution=data.resolution,
            seed=seed_of(teacher.seed, "teach"),
        )
        model = prepared(fresh, device)
        precision = devices.resolve(params.precision, device)
        replays = Replays(device, precision)
        return cls(
            teacher=teacher,
            data=data,
            train=resident(folder, "train", device),
            test_images=resident(folder, "test", device),
            flip=params.flip,
            precision=precision,
            device=device,
            model=model,
            optimizer=_optimizer(model, teacher, device, precision, capturable=replays.wanted),
            scaler=gradient_scaler(precision, device),
            replays=replays,
            loss_sum=torch.zeros((), device=device),
        )

    @property
    def batches(self) -> int:
        """Of an epoch. A last batch of a single image is left out: batch norm refuses it."""
        whole, rest = divmod(len(self.train), self.teacher.batch_size)
        return max(1, whole + (rest > 1))

    @property
    def step(self) -> int:
        return self.epoch * self.batches + self.batch

    def order(self) -> Tensor:
        """(N,) int64: the order of this epoch's images."""
        return torch.randperm(len(self.train), generator=generator(self.teacher.seed, "teach", self.epoch))

    def descend(self, order: Tensor) -> None:
        """One batch, one step of the optimiser."""
        size = self.teacher.batch_size
        indices = order[self.batch * size : (self.batch + 1) * size]
        images, labels = self._augmented(indices), sent(self.data.train_labels[indices], self.device)
        images, *pasted = self._mixed(images, labels)
        self.model.train()
        set_rate(self.optimizer, cosine_lr(self.step, steps=self.teacher.epochs * self.batches, lr=self.teacher.lr))
        with repeatable(self.teacher.seed, "teach", "dropout", self.step, device=self.device):
            self.replays.do(self._update, self._changed, None, images, labels, *pasted)
        self.batch += 1

    def _update(self, _: None, images: Tensor, labels: Tensor, *pasted: Tensor) -> tuple[()]:
        """What `descend` does on the device. pasted: (B,) classes of what CutMix pasted in, and its share, if it did."""
        with computing(self.precision, self.device):
            logits = self.model(images)
        loss = mixed_cross_entropy(logits, labels, *pasted) if pasted else F.cross_entropy(logits.float(), labels)
        self.optimizer.zero_grad()
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.loss_sum += loss.detach()
        return ()

    def _changed(self) -> list[Tensor]:
        """All that `_update` changes."""
        return [self.loss_sum, *self.model.state_dict().values(), *optimizer_tensors(self.optimizer).values()]

    def close_epoch(self) -> float:
        """Mean loss of the epoch's batches, nats. Raises Diverged when it is not finite."""
        loss = self.loss_sum.item() / self.batches
        if not math.isfinite(loss):
            raise Diverged("teacher training", self.step)
        self.loss_sum.zero_()
        self.epoch, self.batch = self.epoch + 1, 0
        return loss

    def test(self) -> float:
        """Share of the test images that are recognised, %."""
        self.top1_pct = top1_pct(
            self.model,
            self.test_images,
            self.data.test_labels,
            statistics=self.data.statistics,
            precision=self.precision,
            device=self.device,
        )
        return self.top1_pct

    def state(self) -> State:
        """Everything that the next batches depend on."""
        tensors = {
            **under("model", self.model.state_dict()),
            **under("optimizer", optimizer_tensors(self.optimizer)),
            **scaler_state(self.scaler),
            "loss_sum": self.loss_sum,
        }
        facts = {"epoch": self.epoch, "batch": self.batch, "top1_pct": self.top1_pct}
        return tensors, facts

    def restore(self, found: Checkpoint) -> None:
        """Go on from a checkpoint: the weights will be the same to the byte."""
        self.model.load_state_dict(taken_from("model", found.tensors))
        restore_optimizer(self.optimizer, taken_from("optimizer", found.tensors))
        restore_scaler(self.scaler, found.tensors)
        self.loss_sum = found.tensors["loss_sum"].to(self.device)
        self.replays.forget()
        self.epoch, self.batch = found.facts["epoch"], found.facts["batch"]
        self.top1_pct = found.facts["top1_pct"]

    def _augmented(self, indices: Tensor) -> Tensor:
        """(B, 3, S, S) normalised: this batch as the network sees it."""
        chance = generator(self.teacher.seed, "teach", "views", self.step)
        pixels = batch_of(self.train, indices, self.device)
        flips = draw_flips(len(indices), generator=chance) & self.flip
        side = pixels.shape[2]
        if self.teacher.crop == "resized":
            boxes = draw_boxes(len(indices), height=side, width=side, generator=chance)
            levels = crop_pixels(pixels, boxes, flips, side)
        else:
            reach = round(side * SHIFT)
            offsets = torch.randint(-reach, reach + 1, (len(indices), 2), generator=chance)
            levels = shifted(pixels, offsets, flips)
        return normalised(levels, self.data.statistics).contiguous(memory_format=torch.channels_last)

    def _mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, S, S) images, a rectangle of each out of its partner's where the recipe has CutMix; then also the
        partners' (B,) classes, and the share of the area that each has.
        """
        count, side = len(images), images.shape[2]
        if not self.teacher.cutmix:
            return (images,)
        chance = generator(self.teacher.seed, "teach", "mix", self.step)
        partners = sent(torch.randperm(count, generator=chance), self.device)
        box = torch.tensor(draw_mix_box(side, generator=chance))
        share = (box[2] - box[0]) * (box[3] - box[1]) / side**2
        mixed = paste(images, partners, box.expand(count, 4)).contiguous(memory_format=torch.channels_last)
        return mixed, labels[partners], sent(share.expand(count), self.device)


def shifted(pixels: Tensor, offsets: Tensor, flips: Tensor) -> Tensor:
    """(B, 3, S, S), moved by (B, 2) whole px down and right over black, mirrored where (B,) flips say so."""
    side, reach = pixels.shape[2], int(offsets.abs().max())
    place = torch.arange(side)
    across = place - offsets[:, 1:]
    across = torch.where(flips[:, None], side - 1 - across, across) + reach
    down = place - offsets[:, :1] + reach
    image = torch.arange(len(pixels), device=pixels.device)[:, None, None]
    rows, columns = sent(down, pixels.device)[:, :, None], sent(across, pixels.device)[:, None, :]
    moved = F.pad(pixels, (reach,) * 4).permute(0, 2, 3, 1)[image, rows, columns]
    return moved.permute(0, 3, 1, 2)


def _optimizer(
    model: nn.Module, teacher: Teacher, device: torch.device, precision: Precision, *, capturable: bool
) -> torch.optim.Optimizer:
    """capturable: its steps may be recorded as a CUDA graph."""
    gpu, lr, decay = device.type == "cuda", rate(teacher.lr, device), teacher.weight_decay
    if teacher.optimizer == "adamw":
        return torch.optim.AdamW(
            model.parameters(), lr=lr, weight_decay=decay, fused=gpu or None, capturable=capturable
        )
    # In fp16, after a first gradient that overflowed, torch's fused SGD goes on with a momentum that was never written.
    fused = (gpu and precision != "fp16") or None
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=decay, fused=fused)
