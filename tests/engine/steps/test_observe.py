"""What is observed of the real images is what a direct computation over all of them gives."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from engine.data import RealData, real_data, teacher
from engine.observed import Observed
from engine.params import ObserveParams
from engine.pixels import normalised
from engine.plan import Step, StepKind
from engine.statistics import batch_norms, convolutions
from tests.engine.jobs import CPU, Job, attempt, contents, interrupted


def _step(job: Job, name: str, *, conv: bool = True, classes: bool = True, crops: bool = True) -> Step:
    """An observe step of the job's data and teacher."""
    params = ObserveParams(conv=conv, classes=classes, crops=crops, precision="fp32")
    needs = {"data": job.step(StepKind.PREPARE).key, "teacher": job.step(StepKind.TEACH).key}
    return Step(
        key=name,
        kind=StepKind.OBSERVE,
        title=name,
        params=params.model_dump(mode="json"),
        needs=needs,
        flop=0.0,
        size_bytes=0,
    )


def _inputs(job: Job, data: RealData) -> tuple[list[Tensor], list[Tensor]]:
    """What enters each convolution and each batch norm when all training images are shown at once, float64."""
    model = teacher(job.folder(StepKind.TEACH), CPU)
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    listened: tuple[Sequence[nn.Module], ...] = (convolutions(model), batch_norms(model))
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, into=into: into.append(given[0].double()))
        for into, layers in zip(found, listened, strict=True)
        for layer in layers
    ]
    with torch.no_grad():
        model(normalised(data.train[:], data.statistics))
    for hook in hooks:
        hook.remove()
    return found


def _mean(values: Tensor, over: tuple[int, ...]) -> Tensor:
    return values.mean(over)


def _var(values: Tensor, over: tuple[int, ...]) -> Tensor:
    return values.var(over, correction=0)


def test_statistics_are_those_of_all_real_images(job: Job) -> None:
    data = real_data(job.folder(StepKind.PREPARE))
    observed = Observed.read(attempt(_step(job, "observed"), job.store, 1), CPU)
    convs, norms = _inputs(job, data)
    assert observed.conv is not None and observed.classes is not None
    for index, statistic in enumerate((_mean, _var)):
        expected = torch.cat([statistic(given, (0, 2, 3)) for given in convs])
        torch.testing.assert_close(observed.conv[index].double(), expected, atol=1e-5, rtol=1e-4)
        of_images = torch.cat([statistic(given, (2, 3)) for given in norms], 1)
        of_classes = torch.stack([of_images[data.train_labels == label].mean(0) for label in range(10)])
        torch.testing.assert_close(observed.classes[index].double(), of_classes, atol=1e-5, rtol=1e-4)


def test_a_crop_is_recognised_more_often_than_by_chance_and_less_often_than_a_whole_image(job: Job) -> None:
    data, model = real_data(job.folder(StepKind.PREPARE)), teacher(job.folder(StepKind.TEACH), CPU)
    observed = Observed.read(attempt(_step(job, "crops", conv=False, classes=False), job.store, 1), CPU)
    found = model(normalised(data.train[:], data.statistics)).argmax(1)
    whole = 100 * (found == data.train_labels).double().mean().item()
    assert observed.crops_top1_pct is not None and 10 < observed.crops_top1_pct < whole
    assert observed.conv is None and observed.classes is None


def test_an_interrupted_pass_leaves_the_same_bytes(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.networks.LOOKED_AT_PIXELS", 300 * 8**2)  # five batches
    step = _step(job, "stopped")
    whole = contents(attempt(_step(job, "not-stopped"), job.store, 1))
    out, number = interrupted(step, job.store, every=1)
    assert number > 3 and contents(out) == whole
