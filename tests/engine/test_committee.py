"""Whom an iteration asks, and what each answer counts."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from engine.committee import Rule, Vote, prior_weights, votes

PLACE = ("recover", 0, 0)


def asked(rule: Rule, steps: int, priors_pct: tuple[float, ...] = (50.0, 60.0, 70.0)) -> list[tuple[Vote, ...]]:
    return [votes(rule, step, priors_pct=priors_pct, seed=0, place=PLACE) for step in range(steps)]


def test_turns_go_round() -> None:
    assert asked("turns", 4) == [(Vote(index, 1.0),) for index in (0, 1, 2, 0)]


def test_one_that_is_drawn_is_any_of_them_about_equally_often() -> None:
    counts = Counter(vote.teacher for (vote,) in asked("random", 300))
    assert set(counts) == {0, 1, 2} and min(counts.values()) > 70


def test_a_pair_is_two_different_ones_and_every_pair_comes() -> None:
    pairs = {frozenset(vote.teacher for vote in pair) for pair in asked("pairs", 60)}
    assert pairs == {frozenset(pair) for pair in [(0, 1), (0, 2), (1, 2)]}


def test_the_better_one_of_a_pair_counts_more_by_softmax_at_five_points() -> None:
    better, worse = prior_weights([65.0, 60.0])
    assert better / worse == pytest.approx(math.e) and better + worse == pytest.approx(1)
    assert prior_weights([99.0, 99.0]) == (0.5, 0.5)
    assert prior_weights([90_000.0, 0.0]) == (1.0, 0.0)


def test_weights_of_a_pair_are_those_of_its_own_teachers() -> None:
    for pair in asked("pairs", 20):
        by_teacher = dict(pair)
        assert by_teacher[max(by_teacher)] > by_teacher[min(by_teacher)]


@pytest.mark.parametrize("rule", ["random", "pairs"])
def test_a_draw_depends_on_seed_place_and_step_alone(rule: Rule) -> None:
    def drawn(seed: int, place: tuple[str | int, ...]) -> list[tuple[Vote, ...]]:
        return [votes(rule, step, priors_pct=(1.0, 2.0, 3.0), seed=seed, place=place) for step in range(30)]

    assert drawn(0, PLACE) == drawn(0, PLACE)
    assert drawn(0, PLACE) != drawn(1, PLACE) and drawn(0, PLACE) != drawn(0, ("recover", 1, 0))
