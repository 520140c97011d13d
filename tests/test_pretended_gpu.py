"""The pretended GPU refuses what a real one refuses, and its graphs are as blind as real ones."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tests.pretended_gpu import CUDA, Gpu, pretended_gpu


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    with pretended_gpu() as gpu:
        yield gpu


@pytest.mark.usefixtures("gpu")
class TestNumbers:
    def test_they_are_those_of_the_cpu(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
        images = torch.randn(5, 3, 8, 8)
        expected = model(images)
        there = model.to(CUDA)(images.to(CUDA))
        assert there.device == CUDA and there.is_cuda
        assert torch.equal(there.cpu(), expected)

    def test_gradients_and_optimisers_stay_on_the_device(self) -> None:
        images = torch.ones(3, device=CUDA).requires_grad_()
        adam = torch.optim.Adam([images], lr=0.5, fused=True)
        torch.autograd.backward(images.square().sum())
        adam.step()
        assert images.grad is not None and images.grad.device == CUDA
        assert adam.state[images]["exp_avg"].device == CUDA and images.tolist() == pytest.approx([0.5] * 3)

    def test_autocast_is_in_16_bits(self) -> None:
        layer, values = nn.Linear(2, 2).to(CUDA), torch.ones(1, 2, device=CUDA)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            assert layer(values).dtype == torch.bfloat16


class TestRefusals:
    def test_tensors_of_both_sides_do_not_mix(self, gpu: Gpu) -> None:
        there, here = torch.ones(2, device=CUDA), torch.ones(2)
        mixed = (
            partial(torch.add, there, here),
            partial(torch.stack, [there, here]),
            partial(Tensor.take, here, there),
        )
        for call in mixed:
            with pytest.raises(RuntimeError, match="device"):
                call()
        assert (there + torch.ones(())).device == CUDA  # a number may come from anywhere

    def test_a_tensor_of_the_device_is_no_array(self, gpu: Gpu) -> None:
        with pytest.raises(TypeError, match="numpy"):
            torch.ones(2, device=CUDA).numpy()
        with pytest.raises(RuntimeError, match="pin"):
            torch.ones(2, device=CUDA).pin_memory()


class TestWaits:
    @pytest.mark.parametrize(
        "waiting",
        [
            lambda there: there.sum().item(),
            lambda there: there.tolist(),
            lambda there: there.cpu(),
            lambda there: bool(there[0] > 0),
            lambda there: there[there > 0],
            lambda there: there.nonzero(),
            lambda there: torch.tensor([1.0], device=CUDA),
            lambda there: torch.ones(1).to(CUDA, non_blocking=True),
            lambda there: there.copy_(torch.ones(2)),
        ],
    )
    def test_what_waits_is_told(self, gpu: Gpu, waiting: object) -> None:
        there = torch.ones(2, device=CUDA)
        gpu.waits.clear()
        assert callable(waiting)
        waiting(there)
        assert gpu.waits

    def test_what_does_not_wait_is_not(self, gpu: Gpu) -> None:
        there = torch.ones(2, device=CUDA)
        there += 2 * torch.ones(2).pin_memory().to(CUDA, non_blocking=True)
        torch.where(there > 2, there, torch.zeros_like(there)).sum()
        assert not gpu.waits

    def test_memory_is_counted_while_it_is_held(self, gpu: Gpu) -> None:
        there = torch.zeros(1000, device=CUDA)
        (there + 1).sum()
        assert gpu.bytes_now == 4000 and gpu.peak_bytes == 8004
        del there
        assert gpu.bytes_now == 0


class TestGraphs:
    def test_a_graph_reads_and_writes_the_memory_it_was_recorded_on(self, gpu: Gpu) -> None:
        given, sums = torch.ones(2, device=CUDA), torch.zeros(2, device=CUDA)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            doubled = 2 * given
            sums += doubled
        assert sums.tolist() == [0, 0] and doubled.tolist() != [2, 2]  # nothing was done
        graph.replay()
        given.fill_(3)
        graph.replay()
        assert doubled.tolist() == [6, 6] and sums.tolist() == [8, 8]
        given = torch.full((2,), 100.0, device=CUDA)  # another piece of memory
        graph.replay()
        assert doubled.tolist() == [6, 6]

    def test_numbers_of_the_cpu_are_those_of_the_recording(self, gpu: Gpu) -> None:
        given, factor, graph = torch.ones(2, device=CUDA), torch.tensor(2.0), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            told = given * factor
        factor.fill_(5)
        graph.replay()
        assert told.tolist() == [2, 2]

    @pytest.mark.parametrize("waiting", [Tensor.item, Tensor.cpu, Tensor.nonzero])
    def test_nothing_waits_while_a_graph_is_recorded(self, gpu: Gpu, waiting: object) -> None:
        given = torch.ones((), device=CUDA)
        assert callable(waiting)
        with pytest.raises(RuntimeError, match="not permitted"), torch.cuda.graph(torch.cuda.CUDAGraph()):
            waiting(given)

    def test_running_statistics_are_those_of_the_replays(self, gpu: Gpu) -> None:
        norm, given = nn.BatchNorm2d(2).to(CUDA), torch.full((2, 2, 2, 2), 4.0, device=CUDA)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            norm(given)
        assert norm.running_mean is not None and norm.running_mean.tolist() == [0, 0]
        graph.replay()
        assert norm.running_mean.tolist() == pytest.approx([0.4, 0.4])
