"""DD-Ranking's own view of the data sets that it knows."""

from __future__ import annotations

import pytest

from engine.datasets import CIFAR10_CLASSES, IMAGENET, KNOWN_STATISTICS
from engine.export.ddranking import CIFAR, IMAGEWOOF, counterpart

SORTED_WOOF = sorted(IMAGEWOOF)


@pytest.mark.parametrize("called", [0, 1], ids=["as folders are", "in words"])
def test_imagewoof_is_remapped_to_its_order_and_no_class_keeps_its_place(called: int) -> None:
    here = tuple(names[called].replace(" ", "_") for names in SORTED_WOOF)
    found = counterpart(here, KNOWN_STATISTICS["cifar10"])
    assert found.name == "ImageWoof" and found.statistics == IMAGENET
    assert [here[source] for source in found.order] == [names[called].replace(" ", "_") for names in IMAGEWOOF]
    assert all(place != source for place, source in enumerate(found.order))


def test_cifar_takes_its_statistics_which_are_not_the_authors() -> None:
    found = counterpart(CIFAR10_CLASSES, KNOWN_STATISTICS["cifar10"])
    assert (found.name, found.statistics, found.order) == ("CIFAR10", CIFAR, tuple(range(10)))
    assert found.statistics != KNOWN_STATISTICS["cifar10"]


@pytest.mark.parametrize("classes", [("ant", "bee"), CIFAR10_CLASSES[:5], (*CIFAR10_CLASSES, "ant")])
def test_other_sets_stay_as_they_are(classes: tuple[str, ...]) -> None:
    found = counterpart(classes, IMAGENET)
    assert (found.name, found.statistics, found.order) == ("", IMAGENET, tuple(range(len(classes))))
