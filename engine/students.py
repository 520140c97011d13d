"""Students: networks trained from scratch on the distilled images, and tested on real ones.

N images of an epoch, n images of a batch, M test images, C channels, S pixels a side, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.datasets import Statistics
from engine.errors import Diverged
from engine.graphs import Replays, rate, set_rate
from engine.labels import LabelPlan, apart, halves, mix_shares, rendered_batches
from engine.losses import distillation_loss, mixed_cross_entropy
from engine.networks import looked_at_together
from engine.pixels import normalised
from engine.precision import (
    Precision,
    computing,
    gradient_scaler,
    prepared,
    restore_scaler,
    scaler_state,
    training_layout,
)
from engine.randomness import repeatable
from engine.schedule import student_lr


@dataclass(frozen=True, slots=True)
class Criterion:
    """What a student learns from in an epoch."""

    loss: Callable[..., Tensor]  # logits (n, K), and the rows of the tensors that belong to them -> mean loss
    tensors: tuple[Tensor, ...]  # (N, ...) each, by position in the epoch, on the device

    def __call__(self, logits: Tensor, positions: slice) -> Tensor:
        """The mean loss of (n, K) logits, by their positions in the epoch."""
        return self.loss(logits, *self.rows(positions))

    def rows(self, positions: slice) -> tuple[Tensor, ...]:
        """What the images at these positions are compared with."""
        return tuple(rows[positions] for rows in self.tensors)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentRecipe:
    """How a student is trained. Defaults: the authors' scripts."""

    epochs: int
    lr: float = 0.001
    eta: float = 2.0
    weight_decay: float = 0.01
    precision: Precision = "fp32"


class Student:
    """A network under training. Its state can be taken out and put back between any two epochs."""

    def __init__(self, model: nn.Module, recipe: StudentRecipe, *, device: torch.device, seed: int = 0) -> None:
        """seed: of the network's own randomness (dropout); what it is shown is decided by the plan."""
        self._layout = training_layout(device, recipe.precision)
        self.model = prepared(model, device, self._layout)
        self.recipe = recipe
        self.epoch = 0  # epochs done
        self._device, self._seed = device, seed
        self._replays = Replays(device, recipe.precision)
        self._optimizer = student_optimizer(
            self.model, lr=recipe.lr, weight_decay=recipe.weight_decay, capturable=self._replays.wanted
        )
        self._scaler = gradient_scaler(recipe.precision, device)

    def train_epoch(self, images: Tensor, plan: LabelPlan, criterion: Criterion, *, statistics: Statistics) -> float:
        """One pass over (N, C, S, S) uint8 images, in the plan's batches; returns the mean loss of its batches, nats.

        Raises Diverged when it is not finite.
        """
        self.model.train()
        lr = student_lr(self.epoch, epochs=self.recipe.epochs, lr=self.recipe.lr, eta=self.recipe.eta)
        set_rate(self._optimizer, lr)
        total = torch.zeros((), device=self._device)
        with repeatable(self._seed, "student", self.epoch, device=self._device):
            for positions, inputs in rendered_batches(images, plan, statistics=statistics, device=self._device):
                total += self.descend(inputs, positions, criterion).mean()
        loss = total.item() / len(plan.batches)
        if not math.isfinite(loss):
            raise Diverged("student training", self.epoch)
        self.epoch += 1
        return loss

    def descend(self, inputs: Tensor, positions: slice, criterion: Criterion) -> Tensor:
        """One step of the optimiser on one batch (n, C, S, S), seen in two halves; returns the loss of each, undivided.

        Each half has batch statistics of its own, as when it was labelled; the gradient is that of the mean loss.
        """
        rows = criterion.rows(positions)
        (losses,) = self._replays.do(self._update, self._changed, criterion.loss, inputs, *rows)
        return losses

    def _update(self, loss: Callable[..., Tensor], inputs: Tensor, *rows: Tensor) -> tuple[Tensor]:
        """What `descend` does on the device."""
        parts = halves(len(inputs))
        self._optimizer.zero_grad()
        with computing(self.recipe.precision, self._device), apart(self.model, parts):
            logits = self.model(inputs.contiguous(memory_format=self._layout))
        losses = torch.stack([loss(logits[part], *(row[part] for row in rows)) for part in parts])
        torch.autograd.backward(self._scaler.scale(losses.mean()))
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return (losses.detach(),)

    def _changed(self) -> list[Tensor]:
        """All that `_update` changes."""
        remembered = [value for entry in self._optimizer.state.values() for value in entry.values()]
        return [*self.model.state_dict().values(), *remembered]

    def state(self) -> dict[str, Tensor]:
        """Everything that the next epochs depend on: for safetensors, and for `restore`."""
        remembered: dict[int, dict[str, Tensor]] = self._optimizer.state_dict()["state"]
        return {
            "epoch": torch.tensor(self.epoch),
            **{f"model.{name}": value.clone() for name, value in self.model.state_dict().items()},
            **{f"adam.{i}.{name}": value.clone() for i, entry in remembered.items() for name, value in entry.items()},
            **scaler_state(self._scaler),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where `state` was taken: the weights will be the same to the byte."""
        self.epoch = int(state["epoch"])
        weights = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
        self.model.load_state_dict(weights)
        remembered: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            if name.startswith("adam."):
                _, index, entry = name.split(".")
                remembered.setdefault(int(index), {})[entry] = value
        restore_memory(self._optimizer, remembered)
        restore_scaler(self._scaler, state)
        self._replays.forget()


def restore_memory(optimizer: torch.optim.Optimizer, remembered: dict[int, dict[str, Tensor]]) -> None:
    """Give an optimiser back what it remembers of each parameter, by index.

    It lies in memory as the parameter does: a fused step walks through both side by side.
    """
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    laid = {
        index: {
            name: torch.empty_like(parameters[index], dtype=value.dtype).copy_(value)
            if value.shape == parameters[index].shape
            else value
            for name, value in entries.items()
        }
        for index, entries in remembered.items()
    }
    optimizer.load_state_dict({"state": laid, "param_groups": optimizer.state_dict()["param_groups"]})


def student_optimizer(
    model: nn.Module, *, lr: float, weight_decay: float, capturable: bool = False
) -> torch.optim.AdamW:
    """AdamW that decays the weights of two and more dimensions, and neither biases nor batch norm.

    capturable: its steps may be recorded as a CUDA graph.
    """
    decayed = [value for name, value in model.named_parameters() if _decays(name, value)]
    others = [value for name, value in model.named_parameters() if not _decays(name, value)]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    device = next(model.parameters()).device
    return torch.optim.AdamW(groups, lr=rate(lr, device), fused=True, capturable=capturable)


def _decays(name: str, value: Tensor) -> bool:
    return "weight" in name and value.dim() >= 2


def soft_criterion(teacher_logits: Tensor, *, temperature: float, device: torch.device) -> Criterion:
    """Learn from the teachers' (N, K) logits of an epoch, by position in its plan."""
    return Criterion(Distillation(temperature), (teacher_logits.to(device),))


@dataclass(frozen=True, slots=True)
class Distillation:
    """`distillation_loss` at a temperature."""

    temperature: float

    def __call__(self, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return distillation_loss(logits, teacher_logits, temperature=self.temperature)


def hard_criterion(labels: Tensor, plan: LabelPlan, *, side: int, device: torch.device) -> Criterion:
    """Learn the true classes: (N,) labels by image, mixed by area where CutMix mixed images of side x side px."""
    own = labels.cpu()[plan.order.long()].long()
    pasted = torch.cat([own[batch][plan.partners[batch].long()] for batch in plan.batches])
    sizes = torch.tensor([batch.stop - batch.start for batch in plan.batches])
    shares = mix_shares(plan, side).repeat_interleave(sizes)
    return Criterion(mixed_cross_entropy, (own.to(device), pasted.to(device), shares.to(device)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How a network does on a test set."""

    top1_pct: float
    top5_pct: float | None  # None for up to five classes
    loss: float  # mean cross-entropy, nats


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    statistics: Statistics,
    precision: Precision,
    device: torch.device,
    rows: Tensor | None = None,
) -> Accuracy:
    """Test a model, which is left in eval mode, on (M, C, S, S) uint8 images, wherever they lie, and their (M,) labels.

    rows: (R,) int64: on these images only, of which a batch at a time is looked at.
    """
    model.eval()
    size = looked_at_together(images.shape[-1], device.type)
    sums, num_classes = torch.zeros(3, dtype=torch.float64, device=device), 0
    with torch.no_grad():
        for part in _parts(images, rows, size):
            inputs = normalised(images[part].to(device), statistics)
            with computing(precision, device):
                logits = model(inputs.contiguous(memory_format=training_layout(device, precision)))
            sums += _judged(logits.float(), labels[part].to(device))
            num_classes = logits.shape[1]
    top1, top5, loss = (sums / (len(images) if rows is None else len(rows))).tolist()
    return Accuracy(top1_pct=100 * top1, top5_pct=100 * top5 if num_classes > 5 else None, loss=loss)


def top1_pct(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    statistics: Statistics,
    precision: Precision,
    device: torch.device,
    rows: Tensor | None = None,
) -> float:
    """Share of (M, C, S, S) uint8 test images, or of some rows of them, that a model recognises, %."""
    judged = evaluate(model, images, labels, statistics=statistics, precision=precision, device=device, rows=rows)
    return judged.top1_pct


def _parts(images: Tensor, rows: Tensor | None, size: int) -> Iterator[slice | Tensor]:
    """Batches, as what picks them out."""
    if rows is None:
        yield from (slice(start, start + size) for start in range(0, len(images), size))
    else:
        yield from torch.split(rows, size)


def _judged(logits: Tensor, labels: Tensor) -> Tensor:
    """(3,) float64 sums over a batch: images whose class is the best guess, is among the best five, cross-entropy."""
    hits = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
    loss = F.cross_entropy(logits, labels, reduction="sum")
    return torch.stack([hits[:, 0].sum(), hits.sum(), loss]).double()
