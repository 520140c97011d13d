"""All that a recipe matches inside one teacher."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Self

from torch import Tensor, nn

from engine.losses import weighted_distance
from engine.methods import Recipe
from engine.observed import Observed
from engine.statistics import BatchNormStatistics, ClassStatistics, ConvStatistics, Listener


class Matching:
    """Listens to a teacher while it is open, and tells how far what it heard is from the real images."""

    def __init__(
        self, teacher: nn.Module, recipe: Recipe, labels: Tensor, observed: Observed, *, blocks: int = 1
    ) -> None:
        """labels: (N,) classes of the images that the teacher will be shown, G blocks one after another."""
        self._recipe = recipe
        self._norms = BatchNormStatistics(teacher, blocks=blocks)
        self._convs: ConvStatistics | None = None
        self._classes: ClassStatistics | None = None
        if recipe.conv:
            assert observed.conv is not None
            self._convs = ConvStatistics(teacher, observed.conv, blocks=blocks)
        if recipe.class_share:
            assert observed.classes is not None
            mean, var = observed.classes
            self._classes = ClassStatistics(teacher, (mean[labels], var[labels]), blocks=blocks)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        listeners: list[Listener | None] = [self._norms, self._convs, self._classes]
        for listener in filter(None, listeners):
            self._open.enter_context(listener)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def distance(self) -> Tensor:
        """(G,) of the last forward pass: batch norms, of which the first counts more, then convolutions."""
        first_bn, share = self._recipe.first_bn, self._recipe.class_share
        distance = weighted_distance(self._norms.distances(), first_bn=first_bn)
        if self._classes is not None:
            of_classes = weighted_distance(self._classes.distances(), first_bn=first_bn)
            distance = (1 - share) * distance + share * of_classes
        if self._convs is not None:
            distance = distance + self._convs.distances().sum(1)
        return distance
