"""Names and shapes of every network's weights, and what a file of weights lacks to be one's. Torch-free: a server without torch
holds against these what users send. `python -m engine.draw_shapes` writes the table; a test holds it to the networks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from engine.networks import LARGE_PX, NETWORKS, SMALL_BELOW_PX, SMALL_PX

TABLE = Path(__file__).with_name("shapes.json")
COUNTER = ".num_batches_tracked"  # of a batch norm: files of old have none, and nothing depends on it here
NORM = (".weight", ".bias", ".running_mean", ".running_var")  # of a batch norm, each as long as it has channels
CONVERT = "python -m engine.convert IN.pth OUT.safetensors --network NAME"
Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A network as a state of weights has it."""

    network: str
    classes: int
    resolution: int  # px; of one of the images that it is for

    def __str__(self) -> str:
        return f"{self.network} for {self.classes:,} classes and images {self.sides}"

    @property
    def sides(self) -> str:
        """Which images it takes: `below 128 px`."""
        facts = NETWORKS[self.network]
        if facts.small_only or facts.torchvision:
            return f"{'below' if self.resolution < SMALL_BELOW_PX else 'from'} {SMALL_BELOW_PX} px"
        return f"from {facts.smallest_px} px"

    def takes(self, resolution: int) -> bool:
        """Whether it is the form that the network has for such images."""
        return not NETWORKS[self.network].misfit(resolution) and _shapes(self.network, resolution) == _shapes(
            self.network, self.resolution
        )


def shapes_of(network: str, *, classes: int, resolution: int) -> dict[str, Shape]:
    """Name -> shape of all weights of a network, in its own order. Raises KeyError when it has no form for that side."""
    found = dict(_shapes(network, resolution))
    head = _head(found)
    for name in (head + "weight", head + "bias"):
        found[name] = (classes, *found[name][1:])
    return found


def misfits(given: Shapes, wanted: Shapes) -> Iterator[str]:
    """What is wrong with weights under the network's names, a few words each; nothing when they fit.

    Batch norms' counters of batches may be missing.
    """
    missing = [name for name in wanted if name not in given and not name.endswith(COUNTER)]
    if missing:
        yield f"it lacks {first_of(missing)}"
    over = [name for name in given if name not in wanted]
    if over:
        yield f"it has {first_of(over)} that the network has not"
    bent = [name for name, shape in wanted.items() if name in given and given[name] != shape]
    if bent:
        found, right = (_told(shape) for shape in (given[bent[0]], wanted[bent[0]]))
        more = f" (and {len(bent) - 1} more are of other shapes)" if len(bent) > 1 else ""
        yield f"{bent[0]} is {found} and not {right}{more}"


def recognised(given: Shapes, networks: Iterable[str] = NETWORKS) -> Form | None:
    """The first of these networks whose weights they are; None when there is none."""
    for network in networks:
        for form, faults in _tried(given, network):
            if not faults:
                return form
    return None


def faults_as(given: Shapes, network: str) -> str:
    """Why weights are not those of a network, by the form that they are nearest to; empty when they are."""
    tried = [faults for _, faults in _tried(given, network)]
    nearest = min(tried, key=lambda faults: (len(faults), sum(map(len, faults))))
    return "; ".join(nearest)


def _tried(given: Shapes, network: str) -> Iterator[tuple[Form, list[str]]]:
    """Each form of a network with as many classes as the weights have, and what does not fit."""
    facts = NETWORKS[network]
    for resolution in (max(SMALL_PX, facts.smallest_px), LARGE_PX):
        if facts.misfit(resolution):
            continue
        ours = _shapes(network, resolution)
        own = from_official(given, ours)
        classes = next(iter(own.get(_head(ours) + "weight", ())), 0)
        wanted = shapes_of(network, classes=classes, resolution=resolution)
        yield Form(network=network, classes=classes, resolution=resolution), list(misfits(own, wanted))


def from_official(state: Mapping[str, Value], names: Iterable[str]) -> dict[str, Value]:
    """A state as users bring it, under the names that a network of ours has for the same weights.

    FADRM's small files have our names already. RDED, DELT and DD-Ranking keep torchvision's (`fc`, `downsample`), which
    our large networks have too, and any of them may carry the prefix that DataParallel leaves. What the network has no
    name for keeps its own.
    """
    ours = {_plain(name): name for name in names}
    return {ours.get(_plain(key), key.removeprefix("module.")): value for key, value in state.items()}


def _plain(key: str) -> str:
    """What all the names of one weight have in common; `norm.1` for `norm1` is torchvision's older DenseNet files'."""
    key = key.removeprefix("module.").replace(".downsample.", ".shortcut.")
    key = re.sub(r"\.(norm|conv)\.([12])\.", r".\1\2.", key)
    return "linear." + key.removeprefix("fc.") if key.startswith("fc.") else key


def _head(shapes: dict[str, Shape]) -> str:
    """The prefix of the last layer, whose rows are the classes."""
    return next(name for name in reversed(shapes) if len(shapes[name]) == 2).removesuffix("weight")


@cache
def _table() -> dict[str, dict[str, int | list[int]]]:
    found: dict[str, dict[str, int | list[int]]] = json.loads(TABLE.read_text())
    return found


@cache
def _shapes(network: str, resolution: int) -> dict[str, Shape]:
    """Of a network with a single class."""
    form = "small" if resolution < SMALL_BELOW_PX or f"{network} large" not in _table() else "large"
    return unpacked(_table()[f"{network} {form}"])


def packed(shapes: Shapes) -> dict[str, int | list[int]]:
    """The same in fewer words: a batch norm is a number of channels."""
    found: dict[str, int | list[int]] = {}
    for name, shape in shapes.items():
        layer, _, _ = name.rpartition(".")
        if layer + COUNTER in shapes:
            found[layer] = shapes[layer + NORM[0]][0]
        else:
            found[name] = list(shape)
    return found


def unpacked(packed_shapes: Mapping[str, int | list[int]]) -> dict[str, Shape]:
    """And back again."""
    found: dict[str, Shape] = {}
    for name, shape in packed_shapes.items():
        if isinstance(shape, int):
            found |= {name + part: (shape,) for part in NORM} | {name + COUNTER: ()}
        else:
            found[name] = tuple(shape)
    return found


def first_of(names: list[str]) -> str:
    """`conv1.weight and 3 more`."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _told(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a single number"
