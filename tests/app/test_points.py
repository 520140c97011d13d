"""Curves are thinned where they are stored, and nothing that one would see is lost."""

from __future__ import annotations

import random

import pytest
from sqlalchemy import event, insert

from app.models import Metric
from app.views.points import Point, points_of
from tests.app.world import World

MOST = 100


def store(world: World, curves: dict[str, list[Point]]) -> None:
    with world.services.database.write() as session:
        rows = [
            {"step_key": "k", "name": name, "x": x, "value": value}
            for name, points in curves.items()
            for x, value in points
        ]
        session.execute(insert(Metric), rows)


def read(world: World, max_points: int = MOST) -> dict[str, list[Point]]:
    with world.services.database.read() as session:
        return points_of(session, ["k", "nobody"], [], max_points)["k"]


def test_thinning_keeps_ends_and_extremes(any_world: World) -> None:
    chance = random.Random(0)
    spike = [(x, 1.0) for x in range(5000)]
    spike[3017] = (3017, 99.0)
    curves: dict[str, list[Point]] = {
        "whole": [(x, chance.random()) for x in range(MOST)],
        "constant": [(x, 2.5) for x in range(3000)],
        "spike": spike,
        "noise": [(x, chance.gauss(0, 1)) for x in range(4000)],
        "far apart": sorted((chance.randrange(2**31), chance.random()) for _ in range(500)),
        "first is least": [(x, float(x)) for x in range(1000)],
    }
    store(any_world, curves)
    found = read(any_world)
    assert found["whole"] == curves["whole"] and set(found) == set(curves)
    for name, points in curves.items():
        kept, values = found[name], [value for _, value in points]
        assert len(kept) <= MOST and kept == sorted(kept) and set(kept) <= set(points), name
        assert kept[0] == points[0] and kept[-1] == points[-1], name
        assert {min(values), max(values)} <= {value for _, value in kept}, name


@pytest.mark.parametrize("curves", [1, 250])
def test_the_number_of_queries_does_not_grow_with_the_curves(world: World, curves: int) -> None:
    store(world, {f"c{number}": [(0, 1.0), (1, 2.0)] for number in range(curves)})
    asked: list[str] = []
    event.listen(world.services.database.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    assert len(read(world)) == curves and len(asked) <= 4
