"""Weights out of a .pth file into a .safetensors file, which a server reads. Runs outside the server, on files one trusts.

    python -m engine.convert IN.pth OUT.safetensors                     says which network it is
    python -m engine.convert IN.pth OUT.safetensors --network resnet18  and writes it only if it is that one

Exit codes: 0 done, 2 wrong usage, 3 the file holds no weights, or others.
"""

# ruff: noqa: T201 - it speaks to a person

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.errors import EngineError, WeightsInvalid
from engine.launch import EXIT_FAILED
from engine.networks import NETWORKS
from engine.shapes import from_official, recognised
from engine.weights import shapes_in

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # what training scripts put weights under
SHOWN = 4  # of the first and of the last keys


def main(words: Sequence[str] | None = None) -> int:
    """Parse, convert, tell."""
    options = _parser().parse_args(words)
    try:
        convert(options.source, options.target, network=options.network)
    except EngineError as error:
        print(f"{error}\n{error.report.hint}".strip(), file=sys.stderr)
        return EXIT_FAILED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m engine.convert", description="From .pth to .safetensors.")
    parser.add_argument("source", type=Path, metavar="IN.pth")
    parser.add_argument("target", type=_safetensors, metavar="OUT.safetensors")
    parser.add_argument("--network", choices=sorted(NETWORKS), metavar="NAME", help="the network that it must be")
    return parser


def _safetensors(word: str) -> Path:
    path = Path(word)
    if path.suffix != ".safetensors":
        raise argparse.ArgumentTypeError(f"{word!r} must end in .safetensors: servers read no other weights")
    return path


def convert(source: Path, target: Path, *, network: str | None) -> None:
    """Write the weights of a .pth file as safetensors, and say what they are.

    Raises WeightsInvalid when there are none, or they are not the named network's; then nothing is written.
    """
    state = unwrapped(_loaded(source), source)
    print("\n".join(_summary(state)))
    shapes = shapes_in(state)
    form = recognised(shapes, NETWORKS if network is None else (network,))
    if form is None and network is not None:
        other = recognised(shapes)
        raise WeightsInvalid(
            f"{source} does not hold the weights of {network}.",
            hint=f"It is {other}." if other else "It is none of the networks known here.",
        )
    _write(state, target)
    print(f"It is {form}." if form else "It is none of the networks known here.")
    print(f"{target} is written.")


def _loaded(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsInvalid(
            f"{path} cannot be read: {error.strerror or error}.", hint="Name a file that torch.save wrote."
        ) from error
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise WeightsInvalid(
            f"{path} holds more than tensors, or torch.save did not write it: {str(error).splitlines()[0]}",
            hint="Where you trust its author, open it in Python by torch.load with weights_only=False, save what "
            ".state_dict() of the network gives by torch.save, and convert that.",
        ) from error


def unwrapped(found: Any, source: Path) -> dict[str, Tensor]:
    """The weights in what was loaded, without what DataParallel prefixes. Raises WeightsInvalid when there are none."""
    if isinstance(found, Mapping):
        inner = next((found[name] for name in WRAPPERS if isinstance(found.get(name), Mapping)), found)
        state = {str(key): value for key, value in inner.items() if isinstance(value, Tensor)}
        if state:
            return from_official(state, ())
    keys = (
        f"the keys {', '.join(map(repr, list(found)[:5]))}"
        if isinstance(found, Mapping)
        else f"a {type(found).__name__}"
    )
    raise WeightsInvalid(
        f"{source} holds no weights but {keys}.",
        hint=f"Weights are looked for at the top and under {', '.join(WRAPPERS)}.",
    )


def _summary(state: Mapping[str, Tensor]) -> list[str]:
    """The first and last keys with their shapes, and how much there is."""
    lines = [f"  {key}: {'x'.join(map(str, value.shape)) or 'a single number'}" for key, value in state.items()]
    if len(lines) > 2 * SHOWN + 1:
        lines[SHOWN:-SHOWN] = [f"  ... {len(lines) - 2 * SHOWN} more ..."]
    millions = sum(value.numel() for value in state.values()) / 1e6
    return [f"{len(state)} tensors, {millions:.2f} million values:", *lines]


def _write(state: Mapping[str, Tensor], target: Path) -> None:
    """Whole or not at all. Copies, because tensors of one file may share their memory, which safetensors refuses."""
    waiting = target.with_suffix(".part")
    try:
        save_file({key: value.clone().contiguous() for key, value in state.items()}, waiting)
        waiting.rename(target)
    except OSError as error:
        raise WeightsInvalid(
            f"{target} cannot be written: {error.strerror or error}.", hint="Name another place."
        ) from error


if __name__ == "__main__":
    sys.exit(main())
