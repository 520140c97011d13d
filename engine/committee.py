"""Whom an iteration of recovery asks, and what each answer counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch

from engine.randomness import generator

PRIOR_TEMPERATURE = 5.0  # percentage points
Rule = Literal["turns", "random", "pairs"]


class Vote(NamedTuple):
    """One teacher that is asked."""

    teacher: int
    weight: float


def votes(
    rule: Rule, step: int, *, priors_pct: Sequence[float], seed: int, place: tuple[str | int, ...]
) -> tuple[Vote, ...]:
    """The teachers of iteration `step`: they depend on seed, place and step alone. priors_pct: one of each teacher.

    turns: one after another (FADRM+, EDC). random: one drawn (G-VBSM, arXiv 2311.17950; its code takes turns).
    pairs: two different ones drawn, weighed by `prior_weights` (CV-DD; its code keeps a pair for a whole image).
    """
    chance, count = generator(seed, *place, "teachers", step), len(priors_pct)
    match rule:
        case "turns":
            return (Vote(step % count, 1.0),)
        case "random":
            return (Vote(int(torch.randint(count, (), generator=chance)), 1.0),)
        case "pairs":
            pair = torch.randperm(count, generator=chance)[:2].tolist()
            weights = prior_weights([priors_pct[teacher] for teacher in pair])
            return tuple(Vote(teacher, weight) for teacher, weight in zip(pair, weights, strict=True))


def prior_weights(priors_pct: Sequence[float]) -> tuple[float, ...]:
    """Softmax of prior performances, %, at a temperature of 5 percentage points: weights that add up to 1.

    CV-DD's prior performance is a student's test accuracy on a set distilled by that teacher alone: a whole job for each
    teacher, and a look at the test set. Here it is the share of random crops of the real training images that the
    teacher recognises (see `engine.steps.observe`): what recovery asks of it, without the test set.
    Source: CV-DD (arXiv 2501.07575) recover/utils_recover.py, voter type "prior".
    """
    best = max(priors_pct)
    powers = [math.exp((prior - best) / PRIOR_TEMPERATURE) for prior in priors_pct]
    return tuple(power / sum(powers) for power in powers)
