"""python -m benchmarks.pretended [NAME...]: recovery on a GPU that is pretended: what is counted, and times on paper.

For machines without one. Counted, of yardstick and engine: the kernels of an iteration, how often one side waits for the
other in it, and the most memory that tensors take (a real device adds the scratch memory of its libraries). On paper: an
iteration takes what its kernels take, each by its bytes, its operations or the least that a kernel takes, or what the CPU
takes to tell of them, whichever is longer. 16 bits are bf16 on both sides, as a CPU takes an age over fp16.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks import planted
from benchmarks.plain import PLAIN
from benchmarks.task import Task
from benchmarks.whole import recoveries
from benchmarks.workloads import Workload, chosen, on_gpu
from engine import device as devices
from engine import norms_torch
from engine.graphs import SWITCH
from engine.passes import Line, Told
from engine.plan.memory import blocks_together
from tests.pretended_gpu import CUDA, Gpu, pretended_gpu

USUAL = ("recover32", "recover32-four", "recover224", "recover224-four")
STAGES = 4
LENGTHS = 1, 2  # iterations a stage, of one teacher: the difference is what goes on and on
REPLAYED = 3, 4  # the same, where a step is replayed from the third time on
# An H200's data sheet, and what large kernels reach of it.
BYTES_PER_S, FLOP_PER_S = 0.8 * 4.8e12, 0.5 * 989e12
LEAST_S, TOLD_S = 2e-6, 6e-6  # the least that a kernel takes, and what it takes to tell of it from Python

Side = Callable[[Task], Iterator[Any]]


class Count(NamedTuple):
    """Of one iteration."""

    images: int
    launches: float
    waits: float
    kernels_s: float  # on paper
    peak_bytes: int

    @property
    def seconds(self) -> float:
        """On paper, of one image."""
        return max(self.kernels_s, self.launches * TOLD_S) / self.images


class Paper:
    """Adds up what kernels take on paper."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def moved(self, *tensors: Tensor | None) -> None:
        """A kernel that reads and writes these."""
        size = sum(one.numel() * one.element_size() for one in tensors if one is not None)
        self.seconds += max(size / BYTES_PER_S, LEAST_S)

    def __call__(self, func: Any, args: Any, kwargs: Any, told: Any) -> None:
        tensors = {id(one): one for one in tree_leaves((args, kwargs, told)) if isinstance(one, Tensor)}
        moved = sum(one.numel() * one.element_size() for one in tensors.values())
        formula = flop_registry.get(func.overloadpacket)
        flop = 0 if formula is None else formula(*args, **kwargs, out_val=told)
        self.seconds += max(moved / BYTES_PER_S, flop / FLOP_PER_S, LEAST_S)


def counted(workload: Workload, side: Side, lengths: tuple[int, int], *, triton: bool = False) -> Count:
    """What a longer run has more than a shorter one, an iteration."""
    found, peak_bytes = [], 0
    for length in lengths:
        steps = STAGES * length * len(workload.networks)
        with _run(workload.model_copy(update={"steps": steps}), side, triton=triton) as (gpu, paper):
            found.append((sum(gpu.launches.values()), len(gpu.waits), paper.seconds))
            peak_bytes = gpu.peak_bytes
    more = STAGES * (lengths[1] - lengths[0]) * len(workload.networks)
    launches, waits, seconds = ((long - short) / more for short, long in zip(*found, strict=True))
    return Count(workload.classes * workload.ipc, launches, waits, seconds, peak_bytes)


class OnPaper:
    """Triton's passes on paper: two launches forward and one backward, whose numbers come from torch's kernels.

    A way, as `engine.passes` has them.
    """

    def __init__(self, gpu: Gpu, paper: Paper) -> None:
        self._gpu, self._paper = gpu, paper

    def forward(self, line: Line, **maps: Tensor | None) -> None:
        self._uncounted(norms_torch.forward, line, maps)
        self._paper.moved(maps["y"], maps["skip"], maps["z"])
        self._gpu.launches["norm"] += 1
        if maps["moments"] is not None:  # of tiles, brought together
            self._paper.moved(maps["moments"])
            self._gpu.launches["norm"] += 1

    def backward(self, line: Line, *, told: Told | None, **maps: Tensor | None) -> None:
        self._uncounted(norms_torch.backward, line, maps | {"told": told})
        self._paper.moved(*maps.values())
        self._gpu.launches["norm"] += 1

    def _uncounted(self, way: Callable[..., None], line: Line, maps: dict[str, Any]) -> None:
        before = self._gpu.launches.copy(), self._paper.seconds
        way(line, **maps)
        self._gpu.launches, self._paper.seconds = before


@contextmanager
def _run(workload: Workload, side: Side, *, triton: bool = False) -> Iterator[tuple[Gpu, Paper]]:
    with tempfile.TemporaryDirectory() as folder:
        planted.steps_of(Task(workload=workload, root=Path(folder), device=torch.device("cpu")))
        with ExitStack() as stack:
            gpu, paper = stack.enter_context(pretended_gpu()), Paper()
            gpu.heed, way = paper, OnPaper(gpu, paper) if triton else None
            stack.enter_context(patch.object(torch, "autocast", _in_bf16(torch.autocast)))
            stack.enter_context(patch("engine.passes.on_gpu", lambda *_: way))
            devices.configure(CUDA, threads=torch.get_num_threads())
            for _ in side(Task(workload=workload, root=Path(folder), device=CUDA)):
                pass
            yield gpu, paper


def _together(task: Task) -> Iterator[Any]:
    """The engine's iterations, of which nothing is told: a job tells one in hundreds."""
    for recovery in recoveries(task, together=True):
        yield from recovery.run(every=sys.maxsize)


def _in_bf16(autocast: Any) -> Callable[..., Any]:
    return lambda device, enabled=True, **_: autocast(device, dtype=torch.bfloat16, enabled=enabled)


def main(names: list[str]) -> None:
    """A line a workload and side."""
    for workload in map(on_gpu, chosen(names or list(USUAL), quick=False)):
        most = blocks_together(workload.networks, side=workload.resolution, block=workload.classes)
        turn = workload.model_copy(update={"ipc": min(workload.ipc, most)})
        one = workload.model_copy(update={"ipc": 1})  # the yardstick's blocks come one after another
        few = turn.model_copy(update={"classes": 4, "ipc": min(turn.ipc, 2)})  # has as many kernels
        os.environ[SWITCH] = "0"
        plain = counted(one, PLAIN["recover"], LENGTHS)
        _tell(workload.name, "yardstick", plain, plain)
        for norms in ("torch", "Triton"):
            ours = counted(turn, _together, LENGTHS, triton=norms == "Triton")
            for switch, side in (("0", norms), ("1", f"{norms}, replayed")):
                os.environ[SWITCH] = switch
                told = counted(few, _together, REPLAYED, triton=norms == "Triton")
                _tell(workload.name, side, ours._replace(launches=told.launches, waits=told.waits), plain)
            os.environ[SWITCH] = "0"


def _tell(name: str, side: str, count: Count, plain: Count) -> None:
    print(
        f"{name:16} {side:16} {count.images:5} images {count.launches:6.0f} launches {count.waits:4.1f} waits"
        f" {count.peak_bytes / 2**30:6.2f} GiB without records; on paper {1e3 * count.kernels_s:7.2f} ms of kernels,"
        f" {1e6 * count.seconds:7.1f} us an image, {plain.seconds / count.seconds:5.1f}x",
        flush=True,
    )


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(sys.argv[1:])
