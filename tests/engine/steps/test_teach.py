"""Teachers learn, and what they leave can be trusted."""

from __future__ import annotations

import pytest
import torch

from engine.data import real_data, teacher, teacher_facts
from engine.events import Metric, Progress, Started
from engine.plan import StepKind
from engine.sources import Digits
from engine.spec import Teacher
from engine.steps.teach import shifted
from engine.store import sha256_of_file
from engine.students import top1_pct
from tests.engine.jobs import CPU, SMALL, SPEC, Job, attempt


def test_a_teacher_learns_and_its_accuracy_is_that_of_its_weights(job: Job) -> None:
    folder, data = job.folder(StepKind.TEACH), real_data(job.folder(StepKind.PREPARE))
    facts = teacher_facts(folder)
    precision, statistics = facts["precision"], data.statistics  # the one that it was trained and tested in
    model = teacher(folder, CPU, precision)
    again = top1_pct(model, data.test, data.test_labels, statistics=statistics, precision=precision, device=CPU)
    one_image = 100 / len(data.test)  # trained and frozen networks may round a tie differently: other memory layouts
    assert again > 40 and facts["top1_pct"] == pytest.approx(again, abs=1.01 * one_image)
    assert facts["sha256"] == sha256_of_file(folder / "weights.safetensors")
    assert facts["classes"] == list(data.classes) and facts["network"] == SMALL


def test_loss_and_accuracy_are_told_after_each_epoch(job: Job) -> None:
    told = job.told(StepKind.TEACH)
    assert isinstance(told[0], Started) and (told[0].total, told[0].unit) == (2, "epochs")
    metrics = [event for event in told if isinstance(event, Metric)]
    assert [metric.x for metric in metrics] == [0, 1]
    assert metrics[1].values["teach.loss"] < metrics[0].values["teach.loss"]
    assert [event.done for event in told if isinstance(event, Progress)] == [1, 2]


def test_every_way_of_training_works(job: Job) -> None:
    step = job.step(StepKind.TEACH)
    kinds = (
        Teacher(network=SMALL, epochs=1, crop="resized", batch_size=500),
        Teacher(network=SMALL, epochs=1, cutmix=True, batch_size=500),
        Teacher(network=SMALL, epochs=1, optimizer="adamw", lr=0.01, batch_size=4096),
        Teacher(network="shufflenet_v2_x0_5", epochs=1, batch_size=721),
    )
    for index, kind in enumerate(kinds):
        params = step.params | {"teacher": kind.model_dump(mode="json"), "flip": True}
        out = attempt(step.model_copy(update={"params": params, "key": f"kind-{index}"}), job.store, 1)
        assert teacher_facts(out)["epochs"] == 1


def test_shifting_moves_whole_pixels_over_black() -> None:
    pixels = torch.arange(1, 28, dtype=torch.uint8).view(1, 3, 3, 3).repeat(3, 1, 1, 1)
    offsets = torch.tensor([[0, 0], [1, 0], [0, -1]])
    still, down, left = shifted(pixels, offsets, torch.zeros(3, dtype=torch.bool))
    assert torch.equal(still, pixels[0])
    assert torch.equal(down[:, 1:], pixels[0, :, :2]) and not down[:, 0].any()
    assert torch.equal(left[:, :, :2], pixels[0, :, :, 1:]) and not left[:, :, 2].any()


def test_a_mirrored_image_is_mirrored_before_it_is_shifted() -> None:
    pixels = torch.arange(1, 28, dtype=torch.uint8).view(1, 3, 3, 3)
    moved = shifted(pixels, torch.tensor([[0, 1]]), torch.tensor([True]))
    assert torch.equal(moved[0, :, :, 1:], pixels[0].flip(2)[:, :, :2]) and not moved[..., 0].any()


def test_the_seed_of_the_teacher_and_not_of_the_job_decides(job: Job) -> None:
    assert SPEC.dataset == Digits(resolution=8)
    step = job.step(StepKind.TEACH)
    assert "seed" not in step.params and step.params["teacher"]["seed"] == 0
