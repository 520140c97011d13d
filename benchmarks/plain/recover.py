"""Recovery as the authors' loop: hooks on batch norm, one crop a batch by torchvision, Adam anew at each stage.

Source: FADRM recover.py and utils_recover.py. N images, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import transforms
from torchvision.transforms import functional as TF

from benchmarks.planted import SEED, recipe_of, steps_of, store_of
from benchmarks.task import Task
from engine import arrays
from engine.data import teacher
from engine.datasets import IMAGENET
from engine.methods import Recipe
from engine.recovery import recovery_views
from engine.schedule import cosine_lr

Look = Callable[[Tensor, int, int], Tensor]  # images, iteration, size
TOLD = 100  # times in a whole budget


class Hook:
    """How far the statistics in front of one batch norm are from what it remembers."""

    def __init__(self, layer: nn.BatchNorm2d) -> None:
        self.feature = torch.zeros(())
        self._hook = layer.register_forward_hook(self._listen)

    def _listen(self, layer: Any, inputs: tuple[Tensor, ...], _: object) -> None:
        channels = inputs[0].shape[1]
        mean = inputs[0].mean([0, 2, 3])
        var = inputs[0].permute(1, 0, 2, 3).contiguous().view([channels, -1]).var(1, unbiased=False)
        self.feature = torch.norm(layer.running_var - var, 2) + torch.norm(layer.running_mean - mean, 2)

    def close(self) -> None:
        self._hook.remove()


def recover(task: Task) -> Iterator[int]:
    """Every ipc by itself; tells image-iterations as often as the engine does."""
    step, store, recipe = steps_of(task)[0], store_of(task), recipe_of(task)
    models = [
        teacher(store.step(key), task.device).to(memory_format=torch.contiguous_format)
        for role, key in step.needs.items()
        if role.startswith("teacher.")
    ]
    hooks = [[Hook(part) for part in model.modules() if isinstance(part, nn.BatchNorm2d)] for model in models]
    sources = arrays.read(store.step(step.needs["patches"]) / "images.npy")
    done = 0
    for ipc, pixels in enumerate(sources):
        losses: list[float] = []
        block = _block(task, recipe, models, hooks, _normalised(pixels.to(task.device)), _look(task, recipe, ipc))
        for iteration, images, loss in block:
            if task.checking:
                losses.append(loss.item())
            done += len(images)
            if iteration % max(1, recipe.steps // TOLD) == 0:
                yield done
        if task.checking:
            task.tell(
                "recover.loss", *(losses if ipc == 0 else [])
            )  # as the engine, whose curves are of its first block
            mean, std = _statistics(task.device)
            task.tell("images", *((images * std + mean).clamp(0, 1) * 255).round().flatten().tolist())


def _block(
    task: Task,
    recipe: Recipe,
    models: Sequence[nn.Module],
    hooks: Sequence[Sequence[Hook]],
    patches: Tensor,
    look: Look,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(iterations done, images, loss before) after each iteration of one block."""
    labels = torch.arange(len(patches), device=task.device)
    half = task.device.type == "cuda" and not task.checking
    scaler = torch.amp.GradScaler(task.device.type, enabled=half)
    images, iteration = _resized(patches, recipe.sizes[0]), 0
    for stage, (budget, size) in enumerate(zip(recipe.budgets, recipe.sizes, strict=True)):
        if stage:
            images = recipe.alpha * _resized(images, size) + (1 - recipe.alpha) * _resized(patches, size)
        images = images.detach().clone().requires_grad_(True)
        optimizer = torch.optim.Adam([images], lr=recipe.lr, betas=recipe.betas, eps=1e-8)
        for _ in range(budget):
            for group in optimizer.param_groups:
                group["lr"] = cosine_lr(iteration, steps=recipe.steps, lr=recipe.lr)
            turn = iteration % len(models)
            optimizer.zero_grad()
            with torch.autocast(task.device.type, dtype=torch.float16, enabled=half):
                loss = F.cross_entropy(models[turn](look(images, iteration, size)), labels)
                factors = [recipe.first_bn] + [1.0] * (len(hooks[turn]) - 1)
                features = [hook.feature * factor for hook, factor in zip(hooks[turn], factors, strict=True)]
                loss = loss + recipe.r_bn * sum(features, torch.zeros((), device=task.device))
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()
            images.data = _clipped(images.data)
            iteration += 1
            yield iteration, images.detach(), loss.detach()


def _look(task: Task, recipe: Recipe, ipc: int) -> Look:
    """One crop, flip and roll for the whole batch: torchvision's own, or, to be compared, the engine's."""
    if not task.checking:
        return _RandomLook(recipe)

    def replayed(images: Tensor, iteration: int, size: int) -> Tensor:
        (view,) = recovery_views(recipe, True, SEED, [("recover", ipc, 0)], iteration, size)
        seen = TF.resized_crop(images, *view.box, [size, size], antialias=True)
        seen = TF.hflip(seen) if view.flip else seen
        return torch.roll(seen, view.roll, (2, 3))

    return replayed


class _RandomLook:
    def __init__(self, recipe: Recipe) -> None:
        self._jitter = recipe.jitter

    def __call__(self, images: Tensor, _: int, size: int) -> Tensor:
        augment = transforms.Compose([transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()])
        down, right = torch.randint(self._jitter + 1, (2,)).tolist()
        seen: Tensor = augment(images)
        return torch.roll(seen, (down, right), (2, 3))


def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in IMAGENET)
    return mean, std


def _normalised(pixels: Tensor) -> Tensor:
    mean, std = _statistics(pixels.device)
    return (pixels.float() / 255 - mean) / std


def _resized(images: Tensor, size: int) -> Tensor:
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False)


def _clipped(images: Tensor) -> Tensor:
    """Channel by channel between black and white, as the authors do it."""
    for channel, (mean, std) in enumerate(zip(*IMAGENET, strict=True)):
        images[:, channel] = torch.clamp(images[:, channel], -mean / std, (1 - mean) / std)
    return images
