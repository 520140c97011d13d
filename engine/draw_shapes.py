"""Writes the table of `engine.shapes` from the networks: `python -m engine.draw_shapes`, after a network came or changed."""

from __future__ import annotations

import json

import torch

from engine.models import build
from engine.networks import LARGE_PX, NETWORKS, SMALL_PX
from engine.shapes import TABLE, Shapes, packed


def drawn() -> dict[str, Shapes]:
    """`<network> <form>` -> the shapes of all its weights with one class; a form for all sides is there once."""
    found: dict[str, Shapes] = {}
    for name, facts in NETWORKS.items():
        found[f"{name} small"] = _shapes(name, max(SMALL_PX, facts.smallest_px))
        if not facts.small_only and (large := _shapes(name, LARGE_PX)) != found[f"{name} small"]:
            found[f"{name} large"] = large
    return found


def _shapes(name: str, resolution: int) -> Shapes:
    with torch.device("meta"):
        state = build(name, num_classes=1, resolution=resolution).state_dict()
    return {key: tuple(value.shape) for key, value in state.items()}


def text() -> str:
    """The table's file: a line a form."""
    lines = [
        f"{json.dumps(name)}: {json.dumps(packed(shapes), separators=(',', ':'))}" for name, shapes in drawn().items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    TABLE.write_text(text())
