"""Files of weights as people make them, and as nobody should. Written by hand: what safetensors would refuse to write, too."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from engine.shapes import Shape, shapes_of

BYTES = {"Content-Type": "application/octet-stream"}
SMALL = "convnet3_w32"


def shapes(network: str = SMALL, *, classes: int = 10, resolution: int = 32) -> dict[str, Shape]:
    return shapes_of(network, classes=classes, resolution=resolution)


def header(given: Mapping[str, Shape], dtype: str = "F32") -> dict[str, Any]:
    """As safetensors writes one."""
    found: dict[str, Any] = {}
    at = 0
    for name, shape in given.items():
        kind, size = (
            ("I64", 8) if name.endswith("num_batches_tracked") else (dtype, {"F32": 4, "F16": 2, "F64": 8}[dtype])
        )
        end = at + size * math.prod(shape)
        found[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    return found


def file_of(head: Any, size_bytes: int | None = None, *, length: int | None = None) -> bytes:
    """A file with this header, and zeros for its tensors. length: what it says of the header, if not the truth."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    if size_bytes is None:
        size_bytes = max((one["data_offsets"][1] for one in head.values() if "data_offsets" in one), default=0)
    return (len(text) if length is None else length).to_bytes(8, "little") + text + bytes(size_bytes)


def weights(network: str = SMALL, *, classes: int = 10, resolution: int = 32, dtype: str = "F32") -> bytes:
    """Weights of a network, all zero."""
    return file_of(header(shapes(network, classes=classes, resolution=resolution), dtype))
