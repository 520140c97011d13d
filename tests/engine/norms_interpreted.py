"""The kernels of norms_gpu.py give what torch's layers give: run on a CPU, by Triton's interpreter.

Whether they are interpreted is settled when Triton is imported, so `test_norms_gpu.py` runs these in a process apart.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from engine import norms_gpu, passes
from engine.fused import FusedNorm
from tests.engine.norms import Apart, distance, drawn, maps, norm, outcome, told_of

# A bf16 keeps 8 bits, an fp16 11. What is rounded up to a ceiling has no gradient.
EXACT = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}


@pytest.fixture(autouse=True)
def _by_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(passes, "way", lambda maps: norms_gpu)


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("ceiling", [0.0, math.inf, 6.0])
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("shape", [(3, 3, 5, 7), (3, 64, 9, 17), (6, 100, 3, 5)])
def test_values_statistics_and_gradients_are_those_of_its_layers(
    shape: tuple[int, ...], added: bool, ceiling: float, dtype: torch.dtype
) -> None:
    holds(shape, added=added, ceiling=ceiling, dtype=dtype, blocks=3)


@pytest.mark.parametrize("shape", [(1, 1024, 3, 3), (5, 1, 1, 1), (2, 58, 40, 41), (3, 7, 30, 31)])
def test_so_they_are_of_one_block_of_any_shape(shape: tuple[int, ...]) -> None:
    holds(shape, added=True, ceiling=math.inf, dtype=torch.float32, blocks=1)


def holds(shape: tuple[int, ...], *, added: bool, ceiling: float, dtype: torch.dtype, blocks: int) -> None:
    layer, features = norm(shape[1]), maps(*shape, dtype=dtype)
    skip = maps(*shape, dtype=dtype, seed=7) if added else None
    found = outcome(FusedNorm.of(layer, ceiling), features, skip, blocks=blocks)
    slow = [values.detach().float().requires_grad_() for values in (features, skip) if values is not None]
    expected = outcome(Apart.of(layer, ceiling), slow[0], slow[1] if added else None, blocks=blocks)
    assert [one.dtype for one in found] == [dtype, torch.float32, torch.float32, *[dtype] * len(slow)]
    for one, other in zip(found, expected, strict=True):
        assert distance(one, other) < EXACT[dtype]


def test_what_is_not_listened_to_has_the_gradient_of_its_values_alone() -> None:
    found, expected = (with_gradient(kind.of(norm(24), math.inf), maps(2, 24, 5, 5)) for kind in (FusedNorm, Apart))
    torch.testing.assert_close(found, expected)


def test_gradients_of_statistics_may_lie_apart() -> None:
    grads: list[Tensor] = []
    for kind in (FusedNorm, Apart):
        layer, features = kind.of(norm(24), 0.0), maps(6, 24, 5, 5)
        told: list[tuple[Tensor, Tensor]] = []
        layer.blocks, layer.hear = 3, told.append
        layer(features)
        grads += torch.autograd.grad(told[0], features, (drawn(24, 3).T, drawn(3, 48, seed=1)[:, :24]))
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("far", [1.0, 1000.0])
@pytest.mark.parametrize("std", [0.1, 100.0])
def test_a_variance_is_that_of_double_precision_up_to_a_thousand_deviations_from_what_is_remembered(
    far: float, std: float
) -> None:
    features = ((maps(1, 40, 33, 33).detach() + far) * std).contiguous(memory_format=torch.channels_last)
    tells_of(features, std=std)


@pytest.mark.parametrize("fan", [2, 4])
def test_however_many_tiles_are_brought_together(fan: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms_gpu, "FAN", fan)
    tells_of((maps(1, 40, 33, 37).detach() + 30.0).contiguous(memory_format=torch.channels_last))


def test_the_first_values_may_be_the_odd_ones() -> None:
    features = maps(1, 40, 33, 33).detach()
    features[0, :, 0] = 1000.0
    tells_of(features)


def tells_of(features: Tensor, *, std: float = 1.0) -> None:
    mean, var = told_of(FusedNorm.of(norm(features.shape[1]), 0.0), features)
    exact = features.double()
    torch.testing.assert_close(mean, exact.mean((0, 2, 3)).float(), rtol=1e-6, atol=1e-6 * std)
    torch.testing.assert_close(var, exact.var((0, 2, 3), unbiased=False).float(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ceiling", [0.0, math.inf, 6.0])
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_comes_out_as_of_torch(odd: float, ceiling: float, dtype: torch.dtype) -> None:
    features = maps(2, 16, 4, 4, dtype=dtype)
    features.detach()[0, 3] = odd
    with np.errstate(invalid="ignore"):
        found, expected = (with_gradient(kind.of(norm(16), ceiling), features) for kind in (FusedNorm, Apart))
    torch.testing.assert_close(found[0], expected[0], rtol=EXACT[dtype], atol=EXACT[dtype], equal_nan=True)
    if not (math.isnan(odd) and ceiling == 6.0):  # there torch answers one on a CPU, and another on a GPU
        torch.testing.assert_close(found[1], expected[1], rtol=EXACT[dtype], atol=EXACT[dtype])


def with_gradient(layer: FusedNorm, features: Tensor) -> tuple[Tensor, Tensor]:
    seen = layer(features)
    (gradient,) = torch.autograd.grad(seen, features, torch.ones_like(seen))
    return seen.detach(), gradient


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 7])
def test_the_variance_of_what_is_no_finite_number_is_none(odd: float, place: int) -> None:
    features = maps(8, 16, 4, 4).detach()
    features[place, 3, 0, 0] = odd
    with np.errstate(invalid="ignore"):
        mean, var = told_of(FusedNorm.of(norm(16), math.inf), features)
    assert str(float(mean[3])) == str(odd) and var[3].isnan()
    assert mean[:3].isfinite().all() and var[:3].isfinite().all()


def test_bytes_are_the_same_every_time() -> None:
    found, again = (
        outcome(FusedNorm.of(norm(24), math.inf), maps(4, 24, 20, 20), maps(4, 24, 20, 20, seed=7), blocks=2)
        for _ in range(2)
    )
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


@pytest.mark.parametrize("dtype", passes.HELD_TO)
def test_a_gpu_that_computes_like_this_is_let_do_it(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(passes.HELD_TO, dtype, passes.HELD_TO[dtype] / 3)  # and is not about to be refused
    assert passes._triton(torch.device("cpu"), dtype) is norms_gpu
