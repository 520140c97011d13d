"""Patches are crops of real images of their class, and say where they were cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from engine import arrays
from engine.data import real_data, teacher
from engine.events import Preview
from engine.herding import features
from engine.methods import Patches
from engine.patches import cut
from engine.pixels import denormalised, normalised, to_pixels
from engine.plan import StepKind
from tests.engine.jobs import CPU, Job, attempt


def _selected(job: Job, name: str, patches: Patches | None, ipc: int = 2, **changes: object) -> tuple[Tensor, Tensor]:
    """Images (I, K, 3, S, S) and their origins (I, K, T, 5)."""
    step = next(step for step in job.plan.steps if step.kind == StepKind.SELECT and step.params["patches"])
    choice = {"choice": "random" if patches is None else "patches"}
    told = None if patches is None else patches.resolved(8, as_rded=False).model_dump()
    params: dict[str, Any] = {"patches": told, "ipc": ipc} | choice | changes
    out = attempt(step.model_copy(update={"params": step.params | params, "key": name}), job.store, 1)
    return arrays.read(out / "images.npy"), arrays.read(out / "origin.npy")


def test_every_patch_is_the_crop_that_it_says_it_is(job: Job) -> None:
    data = real_data(job.folder(StepKind.PREPARE))
    images, origin = (arrays.read(job.folder(StepKind.SELECT) / f"{name}.npy") for name in ("images", "origin"))
    for ipc, label in [(0, 3), (1, 7)]:
        (tile,) = origin[ipc, label]
        assert data.train_labels[tile[0]] == label
        crop = cut(data.train[tile[0]][None], tile[None, None, 1:], size=8, statistics=data.statistics)[0, 0]
        assert torch.equal(images[ipc, label], to_pixels(denormalised(crop, data.statistics)))


def test_four_tiles_make_an_image(job: Job) -> None:
    data = real_data(job.folder(StepKind.PREPARE))
    images, origin = _selected(job, "tiles", Patches(factor=2, candidates=8, crops=2))
    assert origin.shape == (2, 10, 4, 5) and images.shape == (2, 10, 3, 8, 8)
    assert torch.equal(data.train_labels[origin[..., 0]], torch.arange(10).view(1, 10, 1).expand(2, 10, 4))
    tile = origin[1, 6, 3]  # the lower right one
    crop = cut(data.train[tile[0]][None], tile[None, None, 1:], size=4, statistics=data.statistics)[0, 0]
    assert torch.equal(images[1, 6, :, 4:, 4:], to_pixels(denormalised(crop, data.statistics)))


def test_easy_ones_are_easier_for_the_teacher_than_hard_ones(job: Job) -> None:
    scores = []
    for difficulty in ("easy", "medium", "hard"):
        _selected(job, difficulty, Patches.model_validate({"difficulty": difficulty, "candidates": 8, "crops": 2}))
        manifest = job.store.root / "work" / difficulty / "attempt-1" / "manifest.json"
        scores.append(
            job.store.manifest(job.plan.steps[0].key).model_validate_json(manifest.read_text()).result["score_nats"]
        )
    assert scores == sorted(scores) and scores[0] < scores[2]


@pytest.mark.parametrize("patches", [None, Patches(candidates=8, crops=2)])
def test_no_image_is_chosen_twice(job: Job, patches: Patches | None) -> None:
    _, origin = _selected(job, f"once-{patches is None}", patches, ipc=8)
    assert len(set(origin[..., 0].flatten().tolist())) == 80


def test_more_images_begin_with_the_same_random_ones(job: Job) -> None:
    few, many = (_selected(job, f"whole-{ipc}", None, ipc=ipc)[0] for ipc in (2, 5))
    assert torch.equal(many[:2], few)


def test_whole_images_are_left_as_they_are(job: Job) -> None:
    data = real_data(job.folder(StepKind.PREPARE))
    images, origin = _selected(job, "whole", None)
    assert torch.equal(images, data.train[origin[:, :, 0, 0]])
    assert (origin[..., 1:] == torch.tensor([0, 0, 8, 8])).all()


@pytest.mark.parametrize("factor", range(1, 9))
@pytest.mark.parametrize("difficulty", ["medium", "random"])
def test_any_number_of_tiles_makes_an_image_of_whole_size(job: Job, factor: int, difficulty: str) -> None:
    patches = Patches.model_validate(
        {"factor": factor, "difficulty": difficulty, "candidates": max(8, factor**2), "crops": 1}
    )
    images, origin = _selected(job, f"tiles-{factor}-{difficulty}", patches, ipc=1)
    assert images.shape == (1, 10, 3, 8, 8) and origin.shape == (1, 10, factor**2, 5)
    assert images.float().flatten(1).std() > 0


def test_herding_takes_whole_images_whose_mean_features_are_near_their_classs(job: Job) -> None:
    data, model = real_data(job.folder(StepKind.PREPARE)), teacher(job.folder(StepKind.TEACH), CPU)
    images, origin = _selected(job, "herding", None, ipc=5, choice="herding")
    drawn, _ = _selected(job, "drawn", None, ipc=5)
    assert torch.equal(images, data.train[origin[:, :, 0, 0]])

    def gap(chosen: Tensor, label: int) -> float:
        own = features(model, normalised(chosen[:, label], data.statistics))
        whole = features(model, normalised(data.train[data.usable(label, 50)], data.statistics))
        return float((own.mean(0) - whole.mean(0)).norm())

    assert all(gap(images, label) < gap(drawn, label) for label in range(10))


@pytest.mark.parametrize("choice", ["patches", "random", "herding"])
def test_no_choice_touches_the_images_that_are_held_back(job: Job, choice: str) -> None:
    data = real_data(job.folder(StepKind.PREPARE))
    patches = Patches(candidates=500, crops=1) if choice == "patches" else None
    _, origin = _selected(job, f"held-{choice}", patches, ipc=80, choice=choice, valid_per_class=1000)
    for label in range(10):
        assert not torch.isin(origin[:, label, :, 0], data.held_back(label, 1000)).any()


def test_the_choice_is_shown(job: Job) -> None:
    (preview,) = [event for event in job.told(StepKind.SELECT) if isinstance(event, Preview)]
    assert (job.folder(StepKind.SELECT) / preview.file).read_bytes().startswith(b"\x89PNG")
    assert len(preview.labels) == len(preview.names) == 10 and preview.tile == 8
