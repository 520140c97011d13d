"""The arithmetic of a benchmark: what was measured, and what it says. Torch-free."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice, pairwise
from statistics import median

from pydantic import BaseModel

LEAST = 3  # moments of a measurement, however long they take
# Largest mean absolute difference over mean absolute value, both sides in fp32. Crops of 8-bit images differ by one
# level in some values, hence more where images are cropped anew. Recovery is compared over four steps of Adam, whose
# first are signs of gradients; in untrained networks at 224 px the yardstick's gradient is 1 % from float64's, the
# engine's 0.2 %.
TOLERANCES = {
    "recover.loss": 5e-3,
    "images": 5e-3,
    "logits": 1e-2,
    "evaluate.loss": 5e-3,
    "teach.loss": 1e-3,
    "pixels": 1e-2,
}


class Measured(BaseModel, frozen=True, extra="forbid"):
    """One side once, in a process of its own."""

    seconds: list[float]  # per unit, between one moment and the next
    first_s: float  # to the first moment: loading, compiling, warming up
    precision: str = "fp32"
    host_bytes: int = 0  # the most the process had in memory
    device_bytes: int = 0  # the most a GPU's allocator had taken, with what a recorded step keeps apart
    flop: float = 0.0  # counted, per unit
    map_values: float = 0.0  # values that its feature maps are moved by at least, per unit
    parts_s: dict[str, float] = {}


class Peaks(BaseModel, frozen=True, extra="forbid"):
    """What this machine does at best, as measured in the same run."""

    flop_per_s: dict[str, float]  # precision -> operations of a large matrix product
    bytes_per_s: float  # read and written by a large copy


class Ratio(BaseModel, frozen=True, extra="forbid"):
    """How many times faster one side is than another."""

    median: float  # of medians
    best: float  # of minima, which the machine's other work disturbs least
    rounds: list[float]  # of each round's medians: their spread is that of the machine


def timed(
    done: Iterable[int], *, enough_s: float, settle: Callable[[], None], stride: int = 1
) -> tuple[list[float], float]:
    """Seconds per unit between moments, and to the first one.

    done: units done so far, told again and again. stride: how many of these make a moment, where they take turns at
    unequal work. settle: waits for the device. What comes before the first moment is counted apart, unless there is no
    other.
    """
    stamps = [(time.perf_counter(), 0)]
    for units in islice(done, stride - 1, None, stride):
        settle()
        stamps.append((time.perf_counter(), units))
        if len(stamps) > LEAST and stamps[-1][0] - stamps[1][0] >= enough_s:
            break
    return between(stamps)


def between(stamps: Sequence[tuple[float, int]]) -> tuple[list[float], float]:
    """Moments (s, units done) -> seconds per unit between them, and the seconds to the first."""
    first_s = stamps[1][0] - stamps[0][0]
    counted = stamps[1:] if len(stamps) > 2 else stamps
    pairs = pairwise(counted)
    return [
        (later - sooner) / (after - before) for (sooner, before), (later, after) in pairs if after > before
    ], first_s


def ratio(slow: Sequence[Measured], fast: Sequence[Measured]) -> Ratio:
    """How many times faster `fast` is, of which the measurements came in turn with those of `slow`."""
    return Ratio(
        median=median(_all(slow)) / median(_all(fast)),
        best=min(_all(slow)) / min(_all(fast)),
        rounds=[median(a.seconds) / median(b.seconds) for a, b in zip(slow, fast, strict=True)],
    )


def _all(measured: Sequence[Measured]) -> list[float]:
    return [seconds for one in measured for seconds in one.seconds]


def unit_s(measured: Sequence[Measured]) -> tuple[float, float]:
    """Median and minimum of the seconds per unit."""
    return median(_all(measured)), min(_all(measured))


def limit_s(one: Measured, peaks: Peaks) -> tuple[float, str]:
    """The least seconds that a unit can take at the machine's own peaks, and which of them binds."""
    by_flop = one.flop / peaks.flop_per_s[one.precision]
    by_bytes = one.map_values * (4 if one.precision == "fp32" else 2) / peaks.bytes_per_s
    return (by_flop, "arithmetic") if by_flop >= by_bytes else (by_bytes, "bytes")


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Mean absolute difference over mean absolute value. Raises ValueError when there are not as many of both."""
    apart = sum(abs(a - b) for a, b in zip(one, other, strict=True))
    return apart / max(sum(map(abs, one)), 1e-30)


def compared(one: Mapping[str, Sequence[float]], other: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """How far apart the numbers of two sides are, beside what is allowed. Raises ValueError when they are not the same kind."""
    if one.keys() != other.keys():
        raise ValueError(f"one side gave {sorted(one)}, the other {sorted(other)}")
    return {name: {"distance": distance(one[name], other[name]), "allowed": TOLERANCES[name]} for name in one}


def agree(found: Mapping[str, Mapping[str, float]]) -> bool:
    return all(entry["distance"] <= entry["allowed"] for entry in found.values())
