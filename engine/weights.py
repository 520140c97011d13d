"""Weights that users bring: read and never run, and taken only where each has its place in the network."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.errors import WeightsInvalid
from engine.models import build
from engine.networks import NETWORKS
from engine.shapes import CONVERT, Form, Shape, first_of, from_official, misfits, recognised

IMAGENET_WEIGHTS = "IMAGENET1K_V1"  # what the authors teach with on ImageNet-1K
State = Mapping[str, Tensor]


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
    faults = list(misfits(shapes_in(given), shapes_in(own)))
    if faults:
        wanted = Form(network=network, classes=num_classes, resolution=resolution)
        raise WeightsInvalid(f"{source} does not fit {wanted}: {'; '.join(faults)}.", hint=_remedy(state, network))
    taken = {name: given[name].to(value.dtype) if name in given else value for name, value in own.items()}
    broken = [name for name, value in taken.items() if not value.isfinite().all()]
    if broken:
        raise WeightsInvalid(
            f"{source} holds values that are not finite: in {first_of(broken)}.", hint="Bring weights that work."
        )
    model.load_state_dict(taken)
    return model


def shapes_in(state: State) -> dict[str, Shape]:
    """Name -> shape."""
    return {name: tuple(value.shape) for name, value in state.items()}


def _remedy(state: State, network: str) -> str:
    form = recognised(shapes_in(state), (network, *(other for other in NETWORKS if other != network)))
    if form is None:
        return f"It is none of the networks known here. A file is checked beforehand by {CONVERT}"
    return f"It is {form}. Choose weights that were trained on these classes and for this size, or the network that they are of."
