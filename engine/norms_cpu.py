"""norms.c, called with tensors: `engine.native` compiles it."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine import native

if TYPE_CHECKING:
    from engine.passes import Line, Told

NAMES: dict[torch.dtype, str] = {torch.float32: "float", torch.bfloat16: "half"}


class _Norm(ctypes.Structure):
    """`struct norm` of norms.c, where each field is explained."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("groups", "rows", "channels", "threads")),
        *((name, ctypes.c_void_p) for name in ("mean", "scale", "shift")),
        ("ceiling", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("y", "skip", "z", "moments", "by_z", "by_y", "to_y", "to_skip")),
    )


def forward(line: Line, *, y: Tensor, skip: Tensor | None, z: Tensor, moments: Tensor | None) -> None:
    """Raises MemoryError."""
    _run("forward", line, y=y, skip=skip, z=z, moments=moments)


def backward(
    line: Line,
    *,
    y: Tensor,
    z: Tensor | None,
    by_z: Tensor,
    told: Told | None,
    to_y: Tensor,
    to_skip: Tensor | None,
) -> None:
    """Raises MemoryError."""
    by_y = None
    if told is not None:
        rows = y.numel() // len(line.mean) // line.blocks
        slope = 2 * told.by_var / rows
        by_y = torch.stack([told.by_mean / rows + slope * (line.mean - told.moments[0]), slope])
    _run("backward", line, y=y, z=z, by_z=by_z, by_y=by_y, to_y=to_y, to_skip=to_skip)


def _run(which: str, line: Line, *, y: Tensor, **maps: Tensor | None) -> None:
    channels = len(line.mean)
    own = {"mean": line.mean, "scale": line.scale, "shift": line.shift, "y": y}
    norm = _Norm(
        groups=line.blocks,
        rows=y.numel() // channels // line.blocks,
        channels=channels,
        threads=torch.get_num_threads(),
        ceiling=line.ceiling,
        **{name: None if value is None else value.data_ptr() for name, value in (own | maps).items()},
    )
    library = native.norms()
    assert library is not None  # whoever comes here has asked
    if getattr(library, f"{which}_{NAMES[y.dtype]}")(ctypes.byref(norm)):
        raise MemoryError(f"no memory for the sums of {channels} channels")
