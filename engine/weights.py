"""Weights that users bring: read and never run, and taken only where each has its place in the network."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.errors import WeightsInvalid
from engine.models import build, from_official
from engine.networks import LARGE_PX, NETWORKS, SMALL_BELOW_PX, SMALL_PX

IMAGENET_WEIGHTS = "IMAGENET1K_V1"  # what the authors teach with on ImageNet-1K (recipe.md 2.1)
CONVERT = "python -m engine.convert IN.pth OUT.safetensors --network NAME"
State = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A network as a state of weights has it."""

    network: str
    classes: int
    resolution: int  # px; of one of the images that it is for

    def __str__(self) -> str:
        facts = NETWORKS[self.network]
        if facts.small_only or facts.torchvision:
            sides = f"{'below' if self.resolution < SMALL_BELOW_PX else 'from'} {SMALL_BELOW_PX} px"
        else:
            sides = f"from {facts.smallest_px} px"
        return f"{self.network} for {self.classes:,} classes and images {sides}"


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, on the CPU. Raises WeightsInvalid when it is not there, or is none."""
    try:
        return load_file(path)
    except OSError as error:
        raise WeightsInvalid(
            f"The weights {path} cannot be read: {error.strerror or error}.",
            hint="Give the absolute path of a .safetensors file that the workers can read.",
        ) from error
    except SafetensorError as error:
        raise WeightsInvalid(
            f"{path} is no .safetensors file: {error}.", hint=f"Make one from a .pth file: {CONVERT}"
        ) from error


def imagenet(network: str) -> dict[str, Tensor]:
    """torchvision's ImageNet weights of a network, out of its cache, or fetched into it on first use.

    Raises WeightsInvalid when they are neither there nor to be fetched.
    """
    import torchvision

    weights = torchvision.models.get_model_weights(network)[IMAGENET_WEIGHTS]
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        with redirect_stdout(sys.stderr):  # the loader prints, and an engine's stdout is for events
            state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, EOFError) as error:  # URLError is an OSError
        file = weights.url.rpartition("/")[2]
        raise WeightsInvalid(
            f"torchvision's weights of {network} are not in {cache}, or broken, and cannot be fetched from here: {error}.",
            hint=f"Put torchvision's file {file} into {cache}, or connect this worker to the network.",
        ) from error
    return state


def filled(network: str, state: State, *, num_classes: int, resolution: int, source: str) -> nn.Module:
    """A network with these weights, whichever names they came under. source: where from, for errors.

    Raises WeightsInvalid, naming the first weights at fault, when one is missing, over, of another shape or not finite.
    """
    model = build(network, num_classes=num_classes, resolution=resolution)
    own = model.state_dict()
    given = from_official(state, own)
    faults = list(misfits(given, {name: value.shape for name, value in own.items()}))
    if faults:
        wanted = Form(network=network, classes=num_classes, resolution=resolution)
        raise WeightsInvalid(f"{source} does not fit {wanted}: {'; '.join(faults)}.", hint=_remedy(state, network))
    taken = {name: given[name].to(value.dtype) if name in given else value for name, value in own.items()}
    broken = [name for name, value in taken.items() if not value.isfinite().all()]
    if broken:
        raise WeightsInvalid(
            f"{source} holds values that are not finite: in {_first_of(broken)}.", hint="Bring weights that work."
        )
    model.load_state_dict(taken)
    return model


def misfits(given: State, wanted: Mapping[str, torch.Size]) -> Iterator[str]:
    """What is wrong with weights under the network's names, a few words each; nothing when they fit.

    Batch norms' counters of batches may be missing: files of old have none, and nothing depends on them here.
    """
    missing = [name for name in wanted if name not in given and not name.endswith(".num_batches_tracked")]
    if missing:
        yield f"it lacks {_first_of(missing)}"
    over = [name for name in given if name not in wanted]
    if over:
        yield f"it has {_first_of(over)} that the network has not"
    bent = [name for name, shape in wanted.items() if name in given and given[name].shape != shape]
    if bent:
        found, right = (_shape(shape) for shape in (given[bent[0]].shape, wanted[bent[0]]))
        more = f" (and {len(bent) - 1} more are of other shapes)" if len(bent) > 1 else ""
        yield f"{bent[0]} is {found} and not {right}{more}"


def recognised(state: State, networks: Iterable[str] = NETWORKS) -> Form | None:
    """The first of these networks whose weights they are; None when there is none."""
    for network in networks:
        facts = NETWORKS[network]
        for resolution in (max(SMALL_PX, facts.smallest_px), LARGE_PX):
            if not facts.misfit(resolution):
                form = _form(state, network, resolution)
                if form is not None:
                    return form
    return None


def _form(state: State, network: str, resolution: int) -> Form | None:
    """Whether the weights fit, whatever the number of classes."""
    shapes = dict(_shapes(network, resolution))
    head = next(name for name in reversed(shapes) if len(shapes[name]) == 2).removesuffix("weight")
    given = from_official(state, shapes)
    classes = len(given.get(head + "weight", ()))
    for name in (head + "weight", head + "bias"):
        shapes[name] = torch.Size((classes, *shapes[name][1:]))
    fits = next(misfits(given, shapes), None) is None
    return Form(network=network, classes=classes, resolution=resolution) if fits else None


@cache
def _shapes(network: str, resolution: int) -> Mapping[str, torch.Size]:
    """Of a network's weights, with a single class."""
    with torch.device("meta"):
        state = build(network, num_classes=1, resolution=resolution).state_dict()
    return {name: value.shape for name, value in state.items()}


def _remedy(state: State, network: str) -> str:
    form = recognised(state, (network, *(other for other in NETWORKS if other != network)))
    if form is None:
        return f"It is none of the networks known here. A file is checked beforehand by {CONVERT}"
    return f"It is {form}. Choose weights that were trained on these classes and for this size, or the network that they are of."


def _first_of(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _shape(shape: torch.Size) -> str:
    return "x".join(map(str, shape)) or "a single number"
