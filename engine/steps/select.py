"""Choose real images: crops ranked by the first teacher, whole images at random, or by herding.

Leaves images.npy (I, K, 3, S, S) uint8, origin.npy (I, K, T, 5) int64: train index, top, left, height, width (px).
I images per class, K classes, T tiles of an image, P crops tried of each candidate, S pixels a side, R crops chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Self

import torch
from torch import Tensor, nn

from engine import arrays
from engine import device as devices
from engine.checkpoint import Checkpoint
from engine.context import Context, Result, State, Telling
from engine.data import RealData, batch_of, chunks, real_data, resident, teacher
from engine.events import Preview, Progress, Started
from engine.herding import features, herd
from engine.methods import Patches
from engine.params import SelectParams
from engine.patches import choose, cut, draw_crops, score, tiled
from engine.pixels import denormalised, normalised, to_pixels
from engine.precision import Precision
from engine.randomness import generator
from engine.sheets import contact_sheet, sheet_columns, sheet_tile

SCORED_TOGETHER = 64  # real images
SHOWN_IMAGES = 50


def select(context: Context[SelectParams]) -> Telling:
    """Class after class; the choice within a class depends on the seed, the class and the teacher alone."""
    selection = _Selection.begin(context)
    total = selection.data.num_classes
    yield Started(total=total, unit="classes", resumed_at=selection.done, device=str(context.device))
    while selection.done < total:
        selection.choose_class()
        yield Progress(done=selection.done, total=total, unit="classes")
        if selection.done < total:
            yield from context.pause(selection.done, selection.state)
    yield _preview(context, selection)
    result: Result = {"images": total * context.params.ipc}
    if selection.scores:
        result["score_nats"] = sum(selection.scores) / len(selection.scores)
    return result


@dataclass(slots=True, kw_only=True)
class _Selection:
    """What was chosen so far. Images follow from their origins, so that a checkpoint holds only these."""

    params: SelectParams
    data: RealData
    train: Tensor  # (N, 3, S, S) uint8
    ranker: nn.Module | None  # None where the choice is random
    precision: Precision
    device: torch.device
    images: Tensor  # (I, K, 3, S, S) uint8, on the disk
    origin: Tensor  # (I, K, T, 5) int64, on the disk
    scores: list[float]  # mean cross-entropy of the crops chosen of each class, nats
    done: int = 0  # classes

    @classmethod
    def begin(cls, context: Context[SelectParams]) -> Self:
        """Before the first class, or where a checkpoint was taken."""
        params, folder = context.params, context.folder("data")
        data = real_data(folder)
        classes, side = data.num_classes, data.resolution
        selection = cls(
            params=params,
            data=data,
            train=resident(folder, "train", context.device),
            ranker=None if params.choice == "random" else teacher(context.folder("teacher.0"), context.device),
            precision=devices.resolve(params.precision, context.device),
            device=context.device,
            images=arrays.create(context.out / "images.npy", (params.ipc, classes, 3, side, side), torch.uint8),
            origin=arrays.create(
                context.out / "origin.npy", (params.ipc, classes, _factor(params) ** 2, 5), torch.int64
            ),
            scores=[],
        )
        selection.restore(context.resumed())
        return selection

    def choose_class(self) -> None:
        """Choose the images of the next class."""
        label = self.done
        chance = generator(self.params.seed, "select", label)
        found = self.data.usable(label, self.params.valid_per_class)
        origin = self._chosen(found, label, chance)
        # Image j is tiled from choices j, j + I, j + 2I, ...: see engine.patches.tiled.
        self.origin[:, label] = origin.view(-1, self.params.ipc, 5).transpose(0, 1)
        self._cut(label)
        self.done += 1

    def state(self) -> State:
        """The origins of the classes that are done."""
        return {"origin": self.origin[:, : self.done].contiguous()}, {"done": self.done, "scores": self.scores}

    def restore(self, found: Checkpoint | None) -> None:
        """Go on from a checkpoint, cutting again what it chose."""
        if found is None:
            return
        self.done, self.scores = found.facts["done"], found.facts["scores"]
        self.origin[:, : self.done] = found.tensors["origin"]
        for label in range(self.done):
            self._cut(label)

    def _chosen(self, found: Tensor, label: int, chance: torch.Generator) -> Tensor:
        """(R, 5) origins, out of (n,) indices of a class's images."""
        match self.params.choice:
            case "patches":
                assert self.params.patches is not None
                return self._ranked(found, self.params.patches, label, chance)
            case "random":
                return self._whole(found[torch.randperm(len(found), generator=chance)[: self.params.ipc]])
            case "herding":
                return self._whole(found[herd(self._features(found), self.params.ipc)])

    def _ranked(self, found: Tensor, patches: Patches, label: int, chance: torch.Generator) -> Tensor:
        """(R, 5) origins of a class's chosen crops, out of (n,) indices of its images."""
        side = self.data.resolution
        candidates = found[torch.randperm(len(found), generator=chance)[: patches.candidates]].sort().values
        boxes = draw_crops(len(candidates), patches.crops, height=side, width=side, generator=chance)
        scores = torch.cat([self._scores(candidates[part], boxes[part], label) for part in _parts(len(candidates))])
        chosen = choose(scores, boxes, self.params.ipc * _factor(self.params) ** 2, patches.difficulty, chance)
        self.scores.append(chosen.scores.mean().item())
        return torch.cat([candidates[chosen.images][:, None], chosen.boxes], 1)

    def _whole(self, indices: Tensor) -> Tensor:
        """(R, 5) origins of images that are taken as they are."""
        side = torch.tensor([0, 0, self.data.resolution, self.data.resolution])
        return torch.cat([indices[:, None], side.expand(len(indices), 4)], 1)

    def _features(self, indices: Tensor) -> Tensor:
        """(n, D) what the teacher makes of whole images."""
        assert self.ranker is not None
        batches = (batch_of(self.train, indices[part], self.device) for part in _parts(len(indices)))
        return torch.cat(
            [
                features(self.ranker, normalised(pixels, self.data.statistics), precision=self.precision)
                for pixels in batches
            ]
        )

    def _scores(self, indices: Tensor, boxes: Tensor, label: int) -> Tensor:
        """(n,) images, (n, P, 4) boxes -> (n, P) cross-entropies of the teacher, nats."""
        assert self.ranker is not None
        pixels = batch_of(self.train, indices, self.device)
        crops = cut(pixels, boxes, size=self._tile_side, statistics=self.data.statistics).flatten(0, 1)
        scores = score(self.ranker, crops, label, side=self.data.resolution, precision=self.precision)
        return scores.view(boxes.shape[:2]).cpu()

    def _cut(self, label: int) -> None:
        """Make a class's images from their origins."""
        origin = self.origin[:, label].transpose(0, 1).reshape(-1, 5)
        side = self.data.resolution
        crops = [
            cut(
                batch_of(self.train, origin[part, 0], self.device),
                origin[part, None, 1:],
                size=self._tile_side,
                statistics=self.data.statistics,
            )[:, 0]
            for part in _parts(len(origin))
        ]
        images = tiled(torch.cat(crops), _factor(self.params))[..., :side, :side]
        self.images[:, label] = to_pixels(denormalised(images, self.data.statistics)).cpu()

    @property
    def _tile_side(self) -> int:
        """px; the last row and column of an odd image are cut off."""
        return ceil(self.data.resolution / _factor(self.params))


def _factor(params: SelectParams) -> int:
    """Tiles a side of an image."""
    return 1 if params.patches is None else params.patches.factor


def _parts(count: int) -> list[slice]:
    return [slice(start, stop) for start, stop in chunks(count, SCORED_TOGETHER)]


def _preview(context: Context[SelectParams], selection: _Selection) -> Preview:
    """The first image of up to fifty classes."""
    shown = selection.images[0, :SHOWN_IMAGES]
    (context.out / "previews").mkdir(exist_ok=True)
    file, columns = "previews/00000-000000.png", sheet_columns(len(shown))
    (context.out / file).write_bytes(contact_sheet(shown, columns=columns))
    return Preview(
        x=0,
        total=0,
        file=file,
        columns=columns,
        tile=sheet_tile(selection.data.resolution),
        labels=list(range(len(shown))),
        names=[f"{name} \u00b7 ipc 0" for name in selection.data.classes[: len(shown)]],
    )
