"""How long work takes, roughly: a table of rates, in one place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

# Floating-point operations a second that the engine was seen to reach, all things counted. Rough on purpose.
FLOP_PER_SECOND = {"cpu": 1e11, "gpu": 2e13}
STEP_SECONDS = {"cpu": 1.0, "gpu": 2.0}  # what every step costs beside its arithmetic: reading, writing, warming up
START_SECONDS = 5.0  # of an engine process, which imports torch


class Costs(Protocol):
    """A step of a plan, or its row."""

    @property
    def flop(self) -> float: ...


def seconds(steps: Iterable[Costs], *, begun: bool = False) -> dict[str, float]:
    """Device -> seconds that these steps take, one after another. begun: the engine runs already."""
    work = list(steps)
    flop = sum(step.flop for step in work)
    if not work:
        return dict.fromkeys(FLOP_PER_SECOND, 0.0)
    return {
        device: round((0.0 if begun else START_SECONDS) + STEP_SECONDS[device] * len(work) + flop / rate, 1)
        for device, rate in FLOP_PER_SECOND.items()
    }
