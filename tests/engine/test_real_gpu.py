"""What only a real GPU can tell: `pytest -m gpu tests/engine/test_real_gpu.py`. All else is tested on a pretended one."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
import torch

from engine import device as devices
from engine import passes
from engine.fused import FusedNorm
from engine.graphs import SWITCH, Replays
from engine.plan import StepKind
from engine.precision import Precision
from tests.engine.jobs import SPEC, carried_out, contents, interrupted
from tests.engine.norms import Apart, distance, maps, norm, outcome
from tests.engine.test_on_a_gpu import images_of, recovery, student, told_and_replayed, weights_of

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda:0")


@pytest.fixture(autouse=True)
def _set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replays, "failed", False)
    monkeypatch.setenv(SWITCH, "1")
    devices.configure(GPU)


@pytest.mark.parametrize("dtype", passes.HELD_TO)
def test_triton_gives_what_torch_gives(dtype: torch.dtype) -> None:
    given = [maps(6, 100, 30, 31, dtype=dtype, seed=seed).detach().cuda().requires_grad_() for seed in (0, 7)]
    exact = [one.detach().float().requires_grad_() for one in given]
    layer = norm(100).cuda()
    found = outcome(FusedNorm.of(layer, math.inf), *given, blocks=3)
    expected = outcome(Apart.of(layer, math.inf), *exact, blocks=3)
    assert passes.known(given[0].device) == "Triton"
    assert all(distance(one, other) < passes.HELD_TO[dtype] for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("blocks", [1, 3])
def test_replayed_iterations_come_to_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, precision: Precision, blocks: int
) -> None:
    made = told_and_replayed(monkeypatch, lambda _: images_of(recovery(GPU, precision, blocks=blocks, teachers=2)))
    assert torch.equal(*made)
    assert not Replays.failed and not caplog.records


@pytest.mark.parametrize("labels", ["soft", "hard"])
def test_students_that_are_replayed_come_to_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, labels: str
) -> None:
    weights = told_and_replayed(monkeypatch, lambda _: weights_of(student(GPU, "bf16", labels)[0]))
    assert all(map(torch.equal, *weights))
    assert not Replays.failed and not caplog.records


def test_a_job_goes_through_and_its_recovery_is_the_same_bytes_when_interrupted(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level(logging.WARNING):
        job = carried_out(SPEC, tmp_path, GPU)
        step = job.step(StepKind.RECOVER)
        out, attempts = interrupted(step, job.store, every=2, device=GPU)
    assert attempts > 2 and contents(out) == contents(job.store.step(step.key))
    assert not Replays.failed and not caplog.records
