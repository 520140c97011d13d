"""Labels are what the teachers say of what a student will see, in the order in which it sees it."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine import arrays
from engine.data import images_of, real_data, teacher
from engine.events import Log
from engine.labels import PLAN_ARRAYS, LabelPlan, rendered_batches, soft_labels
from engine.plan import StepKind
from engine.run import perform
from tests.engine.jobs import CPU, Job


def test_logits_are_what_the_teacher_says_of_the_rendered_batches(job: Job) -> None:
    folder, data = job.folder(StepKind.RELABEL), real_data(job.folder(StepKind.PREPARE))
    images = images_of([job.folder(StepKind.RECOVER)]).flatten(0, 1)
    stored = {name: arrays.read(folder / f"{name}.npy") for name in (*PLAN_ARRAYS, "logits")}
    plan = LabelPlan.of({name: stored[name][4] for name in PLAN_ARRAYS}, batch_size=7)
    for rows, inputs in rendered_batches(images, plan, statistics=data.statistics, device=CPU):
        expected = soft_labels([teacher(job.folder(StepKind.TEACH), CPU)], inputs, statistics="batch")
        torch.testing.assert_close(stored["logits"][4, rows].float(), expected, atol=0.02, rtol=0.001)


def test_every_image_is_seen_once_an_epoch_and_epochs_differ(job: Job) -> None:
    order = arrays.read(job.folder(StepKind.RELABEL) / "order.npy")
    assert order.shape == (6, 20)
    assert torch.equal(order.sort(1).values, torch.arange(20, dtype=torch.int32).expand(6, 20))
    assert len(set(map(tuple, order.tolist()))) == 6


def test_nothing_is_mirrored_where_mirroring_is_off(job: Job) -> None:
    assert not arrays.read(job.folder(StepKind.RELABEL) / "flips.npy").any()


def test_labelling_leaves_the_shared_teacher_as_it_was(job: Job) -> None:
    model = teacher(job.folder(StepKind.TEACH), CPU)
    assert not any(module.training for module in model.modules())
    weights = load_file(job.folder(StepKind.TEACH) / "weights.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_how_well_the_teachers_know_the_images_is_told(job: Job) -> None:
    result = job.store.manifest(job.step(StepKind.RELABEL).key).result
    assert 0 <= result["teacher_top1_pct_on_images"] <= 100
    assert (result["epochs"], result["images"]) == (6, 20)


@pytest.mark.parametrize(("turn", "warned"), [(0, False), (3, True)])
def test_classes_in_disorder_are_warned_of(job: Job, turn: int, warned: bool) -> None:
    folder = job.store.step(f"turned-{turn}")
    folder.mkdir(parents=True)
    weights = load_file(job.folder(StepKind.TEACH) / "weights.safetensors")
    turned = {name: value.roll(turn, 0) if name.startswith("linear.") else value for name, value in weights.items()}
    save_file(turned, folder / "weights.safetensors")
    facts = (job.folder(StepKind.TEACH) / "teacher.json").read_text()
    (folder / "teacher.json").write_text(facts)
    step = job.step(StepKind.RELABEL)
    whole = next(step for step in job.plan.steps if step.kind == StepKind.SELECT and step.params["patches"] is None)
    needs = step.needs | {"teacher.0": folder.name, "images.0": whole.key}
    step = step.model_copy(update={"needs": needs, "key": f"turned-labels-{turn}"})
    events = list(perform(step, job.store, out=job.store.attempt(step.key, 1), device=CPU))
    warnings = [event.message for event in events if isinstance(event, Log) and event.level == "warning"]
    assert bool(warnings) == warned
    assert all("classes in the same order" in message for message in warnings)
