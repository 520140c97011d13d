"""The yardstick and the engine do the same work: in fp32, with the same decisions, they give the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.counting import counted, map_values
from benchmarks.ours import engine
from benchmarks.plain import PLAIN
from benchmarks.task import Task
from benchmarks.timing import agree, compared
from benchmarks.workloads import FULL, QUICK, Workload, chosen
from engine.networks import forward_flop

NARROW = ("resnet18_w16",)
TINY = [
    Workload(name="recover", kind="recover", networks=NARROW, resolution=16, ipc=2),
    Workload(name="cycle", kind="recover", networks=(*NARROW, "convnet3_w32"), resolution=16),
    Workload(name="labels", kind="labels", networks=NARROW, resolution=16, batch=5),
    Workload(name="student", kind="student", networks=NARROW, resolution=16, batch=8),
    Workload(name="teach", kind="teach", networks=("convnet3_w32",), resolution=16, images=40, batch=16),
    Workload(name="read", kind="read", images=60, resolution=24),
]


@pytest.mark.parametrize("workload", TINY, ids=lambda workload: workload.name)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_the_yardstick_gives_the_engines_numbers(workload: Workload, tmp_path: Path) -> None:
    told = []
    for side in (PLAIN[workload.kind], engine):
        task = Task(workload=workload.checked, root=tmp_path, device=torch.device("cpu"), checking=True)
        for _ in side(task):
            pass
        told.append(task.numbers)
    found = compared(*told)
    assert found and agree(found), found


def test_recovery_counts_two_passes_of_the_teachers_mean() -> None:
    workload = Workload(name="x", kind="recover", networks=("resnet18", "mobilenet_v2"))
    mean = (forward_flop("resnet18", 32) + forward_flop("mobilenet_v2", 32)) / 2
    assert counted(workload)[0] == pytest.approx(2 * mean)


def test_maps_are_counted_where_they_enter_batch_norm() -> None:
    assert map_values("convnet3_w32", 32) == 32 * (32**2 + 16**2 + 8**2)


def test_every_quick_size_belongs_to_a_workload() -> None:
    assert set(QUICK) <= {workload.name for workload in FULL}
    assert [workload.name for workload in chosen([], quick=True)] == [
        workload.name for workload in FULL if workload.name in QUICK
    ]
    with pytest.raises(KeyError):
        chosen(["nothing"], quick=False)
