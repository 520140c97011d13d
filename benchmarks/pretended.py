"""python -m benchmarks.pretended [NAME...]: what a GPU is told and keeps, counted on one that is pretended. No times.

For machines without one. Of the yardstick, of the engine as it tells a step one by one, and as it replays it: kernels and
copies an iteration, how often one side waits for the other in it, and the most memory that tensors take (a real device
adds the scratch memory of its libraries, and what a recorded step keeps apart). 16 bits are bf16 on both sides.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

from benchmarks import ours, planted
from benchmarks.plain import PLAIN
from benchmarks.task import Task
from benchmarks.whole import recoveries
from benchmarks.workloads import Workload, chosen, on_gpu
from engine import device as devices
from engine.graphs import SWITCH
from tests.pretended_gpu import CUDA, Gpu, pretended_gpu

USUAL = ("recover32", "recover32-four", "recover224", "recover224-four", "student32")
SMALL = {  # where kernels are counted: how many there are does not depend on it
    "recover": {"classes": 4, "ipc": 1},
    "student": {"classes": 4, "ipc": 40, "batch": 8},
}
LENGTHS = 12, 16  # iterations a stage, or epochs: the difference is what goes on and on
STAGES = 4


Side = Callable[[Task], Iterator[Any]]


class Count(NamedTuple):
    """Of one iteration, or one batch of a student."""

    launches: float
    waits: float


def count(workload: Workload, side: Side) -> Count:
    """What a longer run has more than a shorter one, a step."""
    seen, small = [], SMALL[workload.kind]
    for length in LENGTHS:
        with _run(workload.model_copy(update=small | {"steps": STAGES * length, "epochs": length}), side) as gpu:
            seen.append((sum(gpu.launches.values()), len(gpu.waits)))
    steps = STAGES if workload.kind == "recover" else small["classes"] * small["ipc"] // small["batch"]
    steps *= LENGTHS[1] - LENGTHS[0]
    (launches, waits), (more_launches, more_waits) = seen
    return Count((more_launches - launches) / steps, (more_waits - waits) / steps)


def peak_bytes(workload: Workload, side: Side) -> int:
    """The most that tensors took, in the sizes of `on_gpu`."""
    with _run(on_gpu(workload).model_copy(update={"steps": STAGES, "epochs": 1}), side) as gpu:
        return gpu.peak_bytes


@contextmanager
def _run(workload: Workload, side: Side) -> Iterator[Gpu]:
    with tempfile.TemporaryDirectory() as folder:
        task = Task(workload=workload, root=Path(folder), device=torch.device("cpu"))
        planted.steps_of(task)
        with pretended_gpu() as gpu, patch.object(torch, "autocast", _in_bf16(torch.autocast)):
            devices.configure(CUDA, threads=torch.get_num_threads())
            for _ in side(Task(workload=workload, root=Path(folder), device=CUDA)):
                pass
            yield gpu


def _loop(task: Task) -> Iterator[Any]:
    """The engine's iterations, of which nothing is told: a job tells one in hundreds."""
    for recovery in recoveries(task):
        yield from recovery.run(every=sys.maxsize)


def _in_bf16(autocast: Any) -> Callable[..., Any]:
    """A CPU takes an age over fp16."""
    return lambda device, enabled=True, **_: autocast(device, dtype=torch.bfloat16, enabled=enabled)


def main(names: list[str]) -> None:
    """One line a workload and side."""
    for workload in chosen(names or list(USUAL), quick=False):
        sides: dict[str, Side] = {"one by one": ours.engine, "replayed": ours.engine}
        if workload.kind == "recover":  # of a student, the yardstick has processes that load files
            sides = {"yardstick": PLAIN["recover"], "one by one": _loop, "replayed": _loop}
        for name, side in sides.items():
            os.environ[SWITCH] = "0" if name == "one by one" else "1"
            told = count(workload, side)
            line = f"{workload.name:16} {name:12} {told.launches:7.0f} launches {told.waits:6.2f} waits a step"
            if name != "replayed":
                peak = peak_bytes(workload, side if name == "yardstick" else ours.engine)
                line += f", {peak / 2**30:6.2f} GiB of tensors"
            print(line, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
