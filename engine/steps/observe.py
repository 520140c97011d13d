"""What a teacher sees of the real training images, beyond what its batch norms remember: one pass, and nothing is trained.

Leaves observed.safetensors: see `engine.observed`. N images, K classes, C channels, S pixels a side.

Images are looked at whole and unmirrored. All training images count, as they do in what batch norm remembers: those that
are held back from images choose the best epoch of students, and no teacher.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine import device as devices
from engine.augment import draw_boxes
from engine.context import Context, Result, State, Telling
from engine.data import RealData, batch_of, real_data, resident, teacher
from engine.events import Progress, Started
from engine.moments import Moments, channel_moments, image_moments
from engine.networks import looked_at_together
from engine.observed import Observed
from engine.params import ObserveParams
from engine.patches import cut
from engine.pixels import normalised
from engine.precision import Precision, computing
from engine.randomness import generator
from engine.statistics import Listener, batch_norms, convolutions


def observe(context: Context[ObserveParams]) -> Telling:
    """Batch after batch, in the order of the data set; sums are kept in double precision."""
    watch = _Watch.begin(context)
    total = len(watch.train)
    yield Started(total=total, unit="images", resumed_at=watch.done, device=str(context.device))
    while watch.done < total:
        watch.look()
        yield Progress(done=watch.done, total=total, unit="images")
        if watch.done < total:
            yield from context.pause(watch.done, watch.state)
    observed = watch.observed()
    observed.write(context.out)
    result: Result = {"images": total}
    if observed.crops_top1_pct is not None:
        result["crops_top1_pct"] = observed.crops_top1_pct
    return result


@dataclass(slots=True, kw_only=True)
class _Watch:
    """The sums so far."""

    params: ObserveParams
    data: RealData
    train: Tensor  # (N, 3, S, S) uint8
    model: nn.Module
    precision: Precision
    device: torch.device
    conv: Tensor  # (2, sum of C) float64: sums of values and of their squares, an image's mean over its pixels each
    classes: Tensor  # (2, K, sum of C) float64: sums of the images' means and of their variances
    recognised: int = 0  # crops
    done: int = 0  # images

    @classmethod
    def begin(cls, context: Context[ObserveParams]) -> Self:
        """Before the first batch, or where a checkpoint was taken."""
        params, data = context.params, real_data(context.folder("data"))
        model = teacher(context.folder("teacher"), context.device)
        conv = sum(layer.in_channels for layer in convolutions(model)) if params.conv else 0
        norm = sum(layer.num_features for layer in batch_norms(model)) if params.classes else 0
        watch = cls(
            params=params,
            data=data,
            train=resident(context.folder("data"), "train", context.device),
            model=model,
            precision=devices.resolve(params.precision, context.device),
            device=context.device,
            conv=torch.zeros(2, conv, dtype=torch.float64, device=context.device),
            classes=torch.zeros(2, data.num_classes, norm, dtype=torch.float64, device=context.device),
        )
        found = context.resumed()
        if found is not None:
            watch.done, watch.recognised = found.facts["done"], found.facts["recognised"]
            watch.conv.copy_(found.tensors["conv"])
            watch.classes.copy_(found.tensors["classes"])
        return watch

    def look(self) -> None:
        """The next batch."""
        size = looked_at_together(self.data.resolution, self.device.type)
        indices = torch.arange(self.done, min(self.done + size, len(self.train)))
        pixels, labels = batch_of(self.train, indices, self.device), self.data.train_labels[indices].to(self.device)
        if self.params.conv or self.params.classes:
            self._listen(normalised(pixels, self.data.statistics), labels)
        if self.params.crops:
            self.recognised += self._recognised(pixels, labels)
        self.done += len(indices)

    def state(self) -> State:
        """Everything that the rest depends on."""
        return {"conv": self.conv, "classes": self.classes}, {"done": self.done, "recognised": self.recognised}

    def observed(self) -> Observed:
        """What the sums say, once all images were looked at."""
        count = len(self.train)
        mean, square = self.conv / count
        per_class = torch.bincount(self.data.train_labels, minlength=self.data.num_classes).to(self.device)[:, None]
        class_mean, class_var = self.classes / per_class
        return Observed(
            conv=(mean, (square - mean.square()).clamp(min=0)) if self.params.conv else None,
            classes=(class_mean, class_var) if self.params.classes else None,
            crops_top1_pct=100 * self.recognised / count if self.params.crops else None,
        )

    def _listen(self, images: Tensor, labels: Tensor) -> None:
        """Add what the layers see of (B, 3, S, S) normalised images of classes (B,)."""
        convs = Listener(convolutions(self.model), channel_moments)
        norms = Listener(batch_norms(self.model), image_moments)
        with ExitStack() as listening:
            if self.params.conv:
                listening.enter_context(convs)
            if self.params.classes:
                listening.enter_context(norms)
            self._logits(images)
        if self.params.conv:
            mean, var = _joined(convs.heard())
            self.conv += len(images) * torch.cat([mean, var + mean.square()])
        if self.params.classes:
            member = F.one_hot(labels, self.data.num_classes).double()  # a product adds in the same order on every run
            self.classes += torch.stack([member.T @ values for values in _joined(norms.heard())])

    def _recognised(self, pixels: Tensor, labels: Tensor) -> int:
        """How many of (B, 3, S, S) uint8 images are recognised by one random crop each, 8 to 100 % of the area."""
        side = self.data.resolution
        chance = generator(0, "observe", self.done)
        boxes = draw_boxes(len(pixels), height=side, width=side, generator=chance)
        crops = cut(pixels, boxes[:, None], size=side, statistics=self.data.statistics)[:, 0]
        return int((self._logits(crops).argmax(1) == labels).sum())

    def _logits(self, images: Tensor) -> Tensor:
        with torch.no_grad(), computing(self.precision, self.device):
            logits: Tensor = self.model(images.contiguous(memory_format=torch.channels_last))
        return logits


def _joined(moments: list[Moments]) -> Moments:
    """The means of all layers, and their variances, side by side, in double precision."""
    means, variances = (torch.cat(column, -1).double() for column in zip(*moments, strict=True))
    return means, variances
