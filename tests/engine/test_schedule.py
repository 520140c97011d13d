"""Learning rates and resolutions over time."""

from __future__ import annotations

import pytest
import torch

from engine.schedule import cosine_lr, default_jitter, stage_sizes, student_lr
from tests.engine import golden


def test_recoverys_rate_is_the_authors_cosine_over_the_whole_budget() -> None:
    official = golden.stored("lr_schedule")["recover_B2000_lr0.25"]
    ours = torch.tensor([cosine_lr(step, steps=2000, lr=0.25) for step in range(2000)], dtype=torch.float64)
    torch.testing.assert_close(ours, official, atol=1e-12, rtol=0)


@pytest.mark.parametrize("epochs", [300, 1000])
@pytest.mark.parametrize("eta", [1, 2])
def test_students_rate_is_the_authors(epochs: int, eta: int) -> None:
    official = golden.stored("lr_schedule")[f"student_E{epochs}_eta{eta}"]
    ours = [student_lr(epoch, epochs=epochs, lr=1.0, eta=eta) for epoch in range(epochs)]
    torch.testing.assert_close(torch.tensor(ours, dtype=torch.float64), official, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("resolution", "stages", "sizes"),
    [
        (224, 4, (200, 224, 200, 224)),
        (224, 3, (224, 200, 224)),
        (224, 1, (224,)),
        (144, 2, (129, 144)),
        (128, 2, (128, 128)),
        (64, 4, (64, 64, 64, 64)),
        (16, 2, (16, 16)),
    ],
)
def test_the_last_stage_is_at_the_data_sets_own_size(resolution: int, stages: int, sizes: tuple[int, ...]) -> None:
    assert stage_sizes(resolution, stages) == sizes


def test_the_roll_is_four_pixels_for_small_images_and_thirty_two_for_large_ones() -> None:
    assert [default_jitter(side) for side in (16, 32, 64, 200, 224)] == [4, 4, 4, 32, 32]
