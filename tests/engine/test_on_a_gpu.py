"""Whole jobs on a pretended GPU: every tensor where it belongs, nothing waited for inside the loops, the same numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from engine.datasets import describe
from engine.fused import fused
from engine.graphs import SWITCH
from engine.labels import draw_plan
from engine.methods import Method, Optimised, Recipe
from engine.models import build, frozen
from engine.plan import Step, StepKind, plan
from engine.precision import Precision, cast, prepared
from engine.recovery import Recovery
from engine.store import Store
from engine.students import Criterion, Student, StudentRecipe, hard_criterion, soft_criterion
from tests.engine.golden import CIFAR10
from tests.engine.jobs import SPEC, attempt, carried_out, contents, interrupted
from tests.engine.steps.test_resuming import PLACES
from tests.engine.test_method_jobs import METHODS, spec_of
from tests.pretended_gpu import CUDA, Gpu, pretended_gpu

PREPARE, TEACH = StepKind.PREPARE, StepKind.TEACH
Made = TypeVar("Made")
CLASSES, SIDE, COUNT = 4, 16, 24


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    with pretended_gpu() as gpu:
        yield gpu


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.method)
def test_every_method_from_real_images_to_the_download(method: Method, gpu: Gpu, tmp_path: Path) -> None:
    job = carried_out(spec_of(method, tmp_path), tmp_path / "store", CUDA)
    assert gpu.launches["graph"]
    if isinstance(method, Optimised):
        step = job.step(StepKind.RECOVER)
        out, attempts = interrupted(step, job.store, every=2, device=CUDA)
        assert attempts > 2 and contents(out) == contents(job.store.step(step.key))


def told_and_replayed(monkeypatch: pytest.MonkeyPatch, made: Callable[[int], Made]) -> tuple[Made, Made]:
    """What is made where steps are told one by one, and where they are replayed. made: is told which it is, 0 or 1."""
    found = []
    for way in (0, 1):
        monkeypatch.setenv(SWITCH, str(way))
        found.append(made(way))
    return found[0], found[1]


def recovery(device: torch.device, precision: Precision, *, blocks: int = 1, teachers: int = 1) -> Recovery:
    networks = ("resnet18_w16", "convnet3_w32")[:teachers]
    models = [build(network, num_classes=CLASSES, resolution=SIDE, seed=0) for network in networks]
    patches = torch.randn(CLASSES * blocks, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return Recovery(
        teachers=[fused(cast(prepared(frozen(model), device), precision)) for model in models],
        patches=patches.to(device),
        labels=torch.arange(CLASSES).repeat(blocks).to(device),
        recipe=Recipe(budgets=(8, 6), sizes=(SIDE, SIDE), alpha=0.5, lr=0.05, jitter=2, batch=CLASSES),
        statistics=CIFAR10,
        seed=0,
        places=[("recover", block) for block in range(blocks)],
        precision=precision,
    )


def images_of(one: Recovery) -> Tensor:
    for _ in one.run(every=100):
        pass
    return one.images.cpu()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("blocks", [1, 3])
def test_an_iteration_of_recovery_waits_for_nothing(gpu: Gpu, precision: Precision, blocks: int) -> None:
    told = []
    for iteration in recovery(CUDA, precision, blocks=blocks, teachers=2).run(every=100):
        told.append((list(gpu.waits), gpu.launches["graph"], sum(gpu.launches.values())))
        gpu.waits.clear()
        gpu.launches.clear()
        if iteration.step == 6:
            break
    for waits, graphs, launches in told[4:]:  # each teacher was asked twice
        assert not waits
        assert graphs == (precision != "fp16")
        assert launches < 6 or precision == "fp16"


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_replayed_iterations_come_to_the_same_bytes(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch, precision: Precision, blocks: int
) -> None:
    made = told_and_replayed(monkeypatch, lambda _: images_of(recovery(CUDA, precision, blocks=blocks, teachers=2)))
    assert torch.equal(*made)
    assert gpu.launches["graph"] == 14 - 4  # but for the first of each teacher and stage


@pytest.mark.parametrize("network", ["resnet18_w16", "shufflenet_v2_x0_5"])
def test_frozen_convolutions_keep_less_for_the_same_gradient(gpu: Gpu, network: str) -> None:
    model = prepared(frozen(build(network, num_classes=CLASSES, resolution=32, seed=0)), CUDA)
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(CUDA)
    kept: list[int] = []
    gradients: list[Tensor] = []
    for seen_by in (model, fused(model)):
        given = images.clone(memory_format=torch.channels_last).requires_grad_()
        before = gpu.bytes_now
        total = seen_by(given).square().sum()
        kept.append(gpu.bytes_now - before)
        gradients += torch.autograd.grad(total, given)
    torch.testing.assert_close(gradients[1].cpu(), gradients[0].cpu(), atol=1e-5, rtol=1e-4)
    assert kept[1] < 0.75 * kept[0]


def test_recovery_comes_to_what_it_comes_to_on_a_cpu() -> None:
    here = images_of(recovery(torch.device("cpu"), "fp32", blocks=3))
    with pretended_gpu():
        there = images_of(recovery(CUDA, "fp32", blocks=3))
    torch.testing.assert_close(there, here, atol=1e-3, rtol=0)


def student(device: torch.device, precision: Precision, labels: str, epochs: int = 4) -> tuple[Student, list[float]]:
    model = torch.nn.Sequential(
        build("convnet3_w32", num_classes=CLASSES, resolution=SIDE, seed=0), torch.nn.Dropout(0.3)
    )
    one = Student(model, StudentRecipe(epochs=epochs, precision=precision), device=device)
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (COUNT, 3, SIDE, SIDE), generator=chance, dtype=torch.uint8).to(device)
    logits = torch.randn(COUNT, CLASSES, generator=chance).half()
    losses = []
    for epoch in range(epochs):
        drawn = draw_plan(COUNT, batch_size=5, side=SIDE, seed=0, epoch=epoch)
        criterion: Criterion
        if labels == "soft":
            criterion = soft_criterion(logits, temperature=20, device=device)
        else:
            criterion = hard_criterion(torch.arange(COUNT) % CLASSES, drawn, side=SIDE, device=device)
        losses.append(one.train_epoch(images, drawn, criterion, statistics=CIFAR10))
    return one, losses


def weights_of(one: Student) -> list[Tensor]:
    return [value.cpu() for value in one.model.state_dict().values()]


@pytest.mark.parametrize("labels", ["soft", "hard"])
def test_students_that_are_replayed_come_to_the_same_bytes(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch, labels: str
) -> None:
    told, again = told_and_replayed(monkeypatch, lambda _: student(CUDA, "bf16", labels))
    assert all(map(torch.equal, weights_of(told[0]), weights_of(again[0]))) and told[1] == again[1]
    assert gpu.launches["graph"] == 4 * 5 - 2  # batches of five and of four; each as it stands once


def test_an_epoch_of_a_student_waits_at_its_end_alone(gpu: Gpu) -> None:
    trained, _ = student(CUDA, "fp32", "soft", epochs=2)
    drawn = draw_plan(COUNT, batch_size=5, side=SIDE, seed=0, epoch=2)
    criterion = soft_criterion(torch.zeros(COUNT, CLASSES).half(), temperature=20, device=CUDA)
    images = torch.zeros(COUNT, 3, SIDE, SIDE, dtype=torch.uint8, device=CUDA)
    gpu.waits.clear()
    trained.train_epoch(images, drawn, criterion, statistics=CIFAR10)
    assert gpu.waits == ["_local_scalar_dense"]


def _teaching(root: Path, **changes: object) -> tuple[Store, Step]:
    """The step that teaches, of the small job with another teacher, and the store with what it needs."""
    teacher = SPEC.teachers[0].model_copy(update={"batch_size": 512} | changes)
    planned = plan(SPEC.model_copy(update={"teachers": (teacher,)}), describe(SPEC.dataset))
    prepare, teach = (next(step for step in planned.steps if step.kind == kind) for kind in (PREPARE, TEACH))
    store = Store(root)
    store.publish(prepare.key, attempt(prepare, store, 0, device=CUDA))
    return store, teach


@pytest.mark.parametrize(("optimizer", "cutmix"), [("sgd", False), ("adamw", True)])
def test_teachers_that_are_replayed_come_to_the_same_bytes(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, optimizer: str, cutmix: bool
) -> None:
    store, step = _teaching(tmp_path, optimizer=optimizer, cutmix=cutmix)
    left = told_and_replayed(monkeypatch, lambda way: contents(attempt(step, store, way, device=CUDA)))
    assert left[0] == left[1]
    assert gpu.launches["graph"] == 2 * 3 - 2  # of three batches an epoch the last is smaller; each once as it stands


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.usefixtures("gpu")
def test_a_first_gradient_that_overflows_in_fp16_leaves_no_trace(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, optimizer: str
) -> None:
    large = partial(torch.amp.GradScaler, "cuda", init_scale=2.0**24)
    monkeypatch.setattr(sys.modules["engine.steps.teach"], "gradient_scaler", lambda *_: large())
    store, step = _teaching(tmp_path, optimizer=optimizer)
    out = attempt(step.model_copy(update={"params": step.params | {"precision": "fp16"}}), store, 1, device=CUDA)
    assert all(bool(value.isfinite().all()) for value in load_file(out / "weights.safetensors").values())


@pytest.mark.slow
@pytest.mark.usefixtures("gpu")
def test_every_kind_of_step_leaves_the_same_bytes_when_it_is_interrupted(tmp_path: Path) -> None:
    job = carried_out(SPEC, tmp_path, CUDA)
    for kind, (every, least) in PLACES.items():
        out, attempts = interrupted(job.step(kind), job.store, every=every, device=CUDA)
        assert attempts >= least and contents(out) == contents(job.folder(kind)), kind
