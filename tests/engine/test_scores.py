"""The score card says what the runs say, and no more."""

from __future__ import annotations

import math

import pytest

from engine.scores import Score, collect, label_robust_score, robustness, spread, table, verdicts


def _score(subject: str, *last: float, labels: str = "soft") -> Score:
    return Score(subject=subject, student="convnet3", labels=labels, last=last, best=tuple(value + 1 for value in last))


def test_runs_of_a_row_are_gathered_in_order() -> None:
    results = [
        (("distilled", "a", "soft"), {"top1_last_pct": 1.0, "top1_best_pct": 2.0}),
        (("random", "a", "soft"), {"top1_last_pct": 5.0, "top1_best_pct": 6.0}),
        (("distilled", "a", "soft"), {"top1_last_pct": 3.0, "top1_best_pct": 4.0}),
    ]
    first, second = collect(results)
    assert (first.subject, first.last, first.best) == ("distilled", (1.0, 3.0), (2.0, 4.0))
    assert second.last == (5.0,)


def test_the_epoch_that_held_back_images_choose_stands_in_the_card() -> None:
    told = {"top1_last_pct": 1.0, "top1_best_pct": 2.0, "top1_chosen_pct": 1.5}
    (score,) = collect([(("distilled", "a", "soft"), told)])
    assert score.chosen == (1.5,) and "| 1.5 " in table([score])


def test_mean_and_sample_deviation() -> None:
    score = _score("distilled", 60.0, 61.0, 62.0)
    assert (score.mean, score.std) == (61.0, 1.0)
    assert _score("distilled", 60.0).std is None


@pytest.mark.parametrize(("values", "text"), [((61.24,), "61.2"), ((60.0, 61.0, 62.0), "61.0 ± 1.0")])
def test_a_spread_is_shown_where_there_is_one(values: tuple[float, ...], text: str) -> None:
    assert spread(values) == text


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ((50.0, 51.0, 52.0), "10.0 points better than random real images, more than the spread"),
        ((70.0, 71.0, 72.0), "10.0 points worse than random real images"),
        (
            (60.0, 60.5, 61.0),
            "+0.5 points against random real images, within the spread of the runs (±1.5): no difference",
        ),
        ((55.0,), "nothing is known of the spread"),
    ],
)
def test_a_difference_is_claimed_only_beyond_the_spread(other: tuple[float, ...], words: str) -> None:
    (sentence,) = verdicts([_score("distilled", 60.0, 61.0, 62.0), _score("random", *other)])
    assert words in sentence and sentence.startswith("ConvNet, 3 layers, soft labels: ")


def test_only_like_is_compared_with_like() -> None:
    assert verdicts([_score("distilled", 60.0), _score("random", 50.0, labels="hard")]) == []


def test_the_table_is_markdown_with_aligned_columns() -> None:
    lines = table([_score("distilled", 60.0, 61.0), _score("rded", 50.0, 51.0)]).splitlines()
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1
    assert lines[2].startswith("| Distilled images") and "60.5 ± 0.7" in lines[2]


def test_robustness_is_told_in_fractions_and_only_where_all_of_it_was_measured() -> None:
    scores = [_score("distilled", 50.0, 52.0, labels="hard"), _score("random", 40.0, 42.0, labels="hard")]
    (found,) = robustness(scores, {"convnet3": 81.0})
    assert found.hlr == pytest.approx(0.30) and found.ior == pytest.approx(0.10) and found.missing == ""
    alpha = 0.5 * 0.10 - 0.5 * 0.30
    assert found.lrs == pytest.approx((math.exp(alpha) - math.exp(-1)) / (math.e - math.exp(-1)))
    (lacking,) = robustness(scores[:1], {})
    assert (lacking.hlr, lacking.ior, lacking.lrs) == (None, None, None)
    assert "full_data" in lacking.missing and "random" in lacking.missing


def test_soft_labels_come_first_where_both_were_tried() -> None:
    soft = [_score("distilled", 60.0), _score("random", 55.0)]
    hard = [_score("distilled", 30.0, labels="hard"), _score("random", 20.0, labels="hard")]
    (found,) = robustness(soft + hard, {})
    assert found.ior == pytest.approx(0.05)


def test_a_robust_score_lies_between_none_and_one() -> None:
    assert label_robust_score(1, -1) == pytest.approx(0) and label_robust_score(-1, 1) == pytest.approx(1)
