"""Whether a step's memory is estimated from what its networks keep."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine.datasets import describe
from engine.methods import Fadrm
from engine.models import build
from engine.networks import LARGE_PX, NETWORKS, SMALL_PX, looked_at_together
from engine.plan import StepKind, plan
from engine.plan.memory import GIB, KEPT_M, TOGETHER_BYTES, blocks_together
from engine.sources import Digits
from engine.spec import Evaluation, JobSpec, Labels, Teacher


def kept_by_autograd(name: str, side: int) -> float:
    """Numbers kept of one image. Counted on tensors without contents: the second half of a batch is the difference."""

    def kept(images: int) -> int:
        found: dict[int, int] = {}
        holders: list[torch.Tensor] = []  # so that no address is given twice

        def note(tensor: torch.Tensor) -> torch.Tensor:
            if not isinstance(tensor, torch.nn.Parameter):
                storage = tensor.untyped_storage()
                found[storage._cdata] = storage.nbytes()
                holders.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            model(torch.empty(images, 3, side, side, device="meta", requires_grad=True))
        return sum(found.values()) // 4

    with torch.device("meta"):
        model = build(name, num_classes=10, resolution=side).train()
    return (kept(8) - kept(4)) / 4


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_blocks_share_a_batch_while_autograd_keeps_less_than_a_gibibyte(name: str) -> None:
    bytes_a_block = 10 * 4e6 * KEPT_M[name][0]
    blocks = blocks_together(["resnet18_w16", name], side=SMALL_PX, block=10)
    assert blocks * bytes_a_block <= TOGETHER_BYTES < (blocks + 1) * bytes_a_block
    assert blocks_together([name], side=LARGE_PX, block=100) == 1


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "swin_t", "convnet6", "resnet18_w16"])
def test_the_table_is_what_networks_keep(name: str) -> None:
    small, large = KEPT_M[name]
    side = max(SMALL_PX, NETWORKS[name].smallest_px)
    assert small * (side / SMALL_PX) ** 2 == pytest.approx(kept_by_autograd(name, side) / 1e6, rel=0.01)
    if large is not None:
        assert large == pytest.approx(kept_by_autograd(name, LARGE_PX) / 1e6, rel=0.01)


def test_the_table_knows_every_network_and_its_forms() -> None:
    assert {name: large is None for name, (_, large) in KEPT_M.items()} == {
        name: network.small_only for name, network in NETWORKS.items()
    }


def spec(network: str, **changes: Any) -> JobSpec:
    return JobSpec(
        dataset=Digits(resolution=32),
        ipc=1,
        method=Fadrm(budgets=(2, 2)),
        teachers=(Teacher(network=network, epochs=1, batch_size=256),),
        evaluation=Evaluation(students=("convnet3_w32",), runs=1, baselines=("random",)),
        **changes,
    )


def memory(network: str, **changes: Any) -> dict[str, int]:
    """Kind -> the most that a step of it takes on its device, bytes."""
    found: dict[str, int] = {}
    for step in plan(spec(network, **changes), describe(Digits(resolution=32))).steps:
        assert step.host_bytes >= GIB // 2
        found[step.kind] = max(found.get(step.kind, 0), step.device_bytes)
    return found


def test_training_takes_the_most_and_what_only_reads_or_packs_no_device_at_all() -> None:
    taken = memory("resnet50")
    assert taken[StepKind.PREPARE] == taken[StepKind.PACKAGE] == 0
    assert taken[StepKind.TEACH] > 256 * 6.378e6 * 4 + 4 * 4 * 23.52e6
    assert taken[StepKind.TEACH] > taken[StepKind.RECOVER] > taken[StepKind.EVALUATE] > 0


def test_a_wider_network_takes_more_and_the_key_does_not_know() -> None:
    small, large = memory("resnet18"), memory("resnet101")
    assert all(large[kind] >= small[kind] for kind in small) and large[StepKind.TEACH] > 4 * small[StepKind.TEACH]


def test_labels_that_are_made_while_students_learn_take_their_memory_there() -> None:
    stored, made = memory("resnet50"), memory("resnet50", labels=Labels(recipe_only=True))
    assert made[StepKind.RELABEL] == 0 and made[StepKind.EVALUATE] > stored[StepKind.EVALUATE]


def test_a_step_keeps_its_key_whatever_it_weighs() -> None:
    planned = plan(spec("resnet18"), describe(Digits(resolution=32)))
    heavier = [step.model_copy(update={"device_bytes": 1}) for step in planned.steps]
    assert [step.key for step in heavier] == [step.key for step in planned.steps]


def test_a_teacher_that_looks_at_real_images_is_estimated_with_as_many_as_it_takes_at_once() -> None:
    kept = looked_at_together(32, "cpu") * 4e6 * KEPT_M["resnet50"][0]
    assert memory("resnet50")[StepKind.SELECT] > 0.25 * kept > 256 * 4e6


@pytest.mark.parametrize(("side", "device", "images"), [(32, "cpu", 256), (32, "cuda", 256), (224, "cuda", 83)])
def test_small_images_are_looked_at_by_the_hundred_and_large_ones_too_on_a_gpu(
    side: int, device: str, images: int
) -> None:
    assert looked_at_together(side, device) == images
    assert looked_at_together(10_000, device) == 1
