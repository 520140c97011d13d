"""Random numbers depend on their place, and on nothing else."""

from __future__ import annotations

import torch

from engine.randomness import generator, repeatable, seed_of


def test_a_place_has_the_same_numbers_whatever_ran_before() -> None:
    first = torch.rand(5, generator=generator(7, "recover", 3))
    torch.rand(100)
    assert torch.equal(torch.rand(5, generator=generator(7, "recover", 3)), first)


def test_places_and_seeds_differ() -> None:
    places: list[tuple[int, str, int | str]] = [
        (7, "recover", 3),
        (7, "recover", 4),
        (8, "recover", 3),
        (7, "recover", "3"),
        (7, "label", 3),
    ]
    assert len({seed_of(*place) for place in places}) == len(places)


def test_seeds_are_the_same_on_every_machine() -> None:
    assert seed_of(0, "recover", 1) == 5109222774593925045


def test_dropout_can_be_repeated_without_touching_torchs_stream() -> None:
    before, ones = torch.get_rng_state(), torch.ones(64)
    with repeatable(1, "student", 2):
        first = torch.dropout(ones, 0.5, True)
    with repeatable(1, "student", 2):
        second = torch.dropout(ones, 0.5, True)
    assert torch.equal(first, second) and 0 < first.count_nonzero() < 64
    assert torch.equal(torch.get_rng_state(), before)
