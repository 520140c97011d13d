"""The table of shapes, which a server without torch judges weights by."""

from __future__ import annotations

from functools import cache

import pytest

from engine import draw_shapes, shapes
from engine.networks import LARGE_PX, NETWORKS, SMALL_PX

drawn = cache(draw_shapes.drawn)  # it builds every network


def test_the_table_is_what_the_networks_are() -> None:
    assert shapes.TABLE.read_text() == draw_shapes.text(), "python -m engine.draw_shapes"


@pytest.mark.parametrize("name", ["resnet18", "convnet5", "efficientnet_b0", "alexnet"])
def test_shapes_come_out_of_the_table_as_they_went_in(name: str) -> None:
    side = max(SMALL_PX, NETWORKS[name].smallest_px)
    found = shapes.shapes_of(name, classes=1, resolution=side)
    expected = drawn()[f"{name} small"]
    assert found == expected and list(found) == list(expected)
    assert shapes.recognised(shapes.shapes_of(name, classes=7, resolution=LARGE_PX), (name,))


def test_a_form_takes_the_images_that_its_network_has_it_for() -> None:
    small, both = (
        shapes.Form(network=name, classes=5, resolution=resolution)
        for name, resolution in (("resnet18", 32), ("convnet5", 32))
    )
    assert small.takes(64) and not small.takes(224) and both.takes(224) and not both.takes(16)
    assert (small.sides, both.sides) == ("below 128 px", "from 32 px")


def test_what_does_not_fit_is_told_by_the_nearest_form() -> None:
    given = shapes.shapes_of("resnet18", classes=10, resolution=224)
    assert shapes.faults_as(given, "resnet18") == ""
    del given["bn1.bias"]
    assert shapes.faults_as(given, "resnet18") == "it lacks bn1.bias"
    assert "it lacks" in shapes.faults_as(given, "alexnet")
