"""norms.c for a GPU, in Triton: batch norm with fixed statistics, and what stands around it, in one pass over a map.

As there, channels-last maps are rows of C channels: G groups of images, one after another, of `rows` rows (pixels of
images) each. A program takes a tile of TALL rows and WIDE channels, and nothing is added up across programs but by
`_merge`, in order: the same bytes on every run.

What has to move, in maps: forward y and z, and what is added (2 or 3); backward y, z's gradient and y's, and where
something was added z and its gradient (3 or 5). That is all that moves, but for the statistics of tiles: 8 bytes for each
channel of one, written and read once, which for the 128 rows of a tile is 3 % of a forward pass in 16 bits.

Whoever imports this has Triton: `engine.passes` asks for it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from engine.passes import Line, Told

TILE = 8192  # values of a tile: each of its threads has four vectors of 16 bytes under way
WIDEST = 64  # channels of a tile: 128 bytes of each row in 16 bits
FAN = 256  # tiles whose statistics are brought together at once
FAN_CHANNELS = 16
VECTOR = 16  # values: rows that are a multiple of so many are read in whole vectors
OPTIONS = {"num_warps": 8, "enable_fp_fusion": True}


@triton.jit
def _tile(rows, tiles, columns, channels, TALL: tl.constexpr, WIDE: tl.constexpr):
    """A program's tile, of all groups'; its rows; its channels, and which of them there are; the same of its values.

    Neighbours share rows. A map may have more values than 32 bits count, a tile has not.
    """
    program = tl.program_id(0)
    tile = program // columns
    first = (tile % tiles).to(tl.int64) * TALL  # row of its group
    count = tl.minimum(rows - first, TALL).to(tl.int32)
    channel = (program % columns) * WIDE + tl.arange(0, WIDE)
    ours = channel < channels
    row = tl.arange(0, TALL)
    there = (row < count)[:, None] & ours[None, :]
    start = ((tile // tiles).to(tl.int64) * rows + first) * channels
    return tile, count, channel, ours, start, row[:, None] * channels + channel[None, :], there


@triton.jit(do_not_specialize=["rows", "tiles", "columns", "groups", "units"])
def _forward(
    y,
    skip,
    z,
    parts,  # (2, G, tiles, C) written: mean of a tile's rows, and the sum of squares around it
    mean,
    scale,
    shift,
    ceiling,
    rows,
    tiles,
    columns,
    groups,
    units,
    UNIT: tl.constexpr,
    RECTIFIED: tl.constexpr,
    CAPPED: tl.constexpr,
    ADDED: tl.constexpr,
    TOLD: tl.constexpr,
    TALL: tl.constexpr,
    WIDE: tl.constexpr,
):
    channels = units * UNIT
    tile, count, channel, ours, start, inside, there = _tile(rows, tiles, columns, channels, TALL, WIDE)
    given = tl.load(y + start + inside, mask=there, other=0.0).to(tl.float32)
    own_mean = tl.load(mean + channel, mask=ours, other=0.0)
    own_scale = tl.load(scale + channel, mask=ours, other=0.0)
    own_shift = tl.load(shift + channel, mask=ours, other=0.0)
    value = (given - own_mean[None, :]) * own_scale[None, :] + own_shift[None, :]
    if ADDED:
        value += tl.load(skip + start + inside, mask=there, other=0.0).to(tl.float32)
    if RECTIFIED:
        value = tl.where(value <= 0, 0.0, value)  # not a number stays what it is
    if CAPPED:
        value = tl.where(value > ceiling, ceiling, value)
    tl.store(z + start + inside, value.to(z.dtype.element_ty), mask=there)

    if TOLD:
        centre = tl.sum(given, 0) / count
        off = tl.where(there, given - centre[None, :], 0.0)
        to = tile.to(tl.int64) * channels + channel
        tl.store(parts + to, centre, mask=ours)
        tl.store(parts + tiles.to(tl.int64) * groups * channels + to, tl.sum(off * off, 0), mask=ours)


@triton.jit(do_not_specialize=["rows", "each", "count", "fans", "columns", "groups"])
def _merge(
    parts,  # (2, G, count, C): mean and sum of squares around it, of `each` rows, the last of a group of what is left
    merged,  # (2, G, fans, C) written: the same of MANY parts
    rows,
    each,
    count,
    fans,
    columns,
    groups,
    channels,
    LAST: tl.constexpr,  # there is one fan: variances are written, not sums
    MANY: tl.constexpr,
    WIDE: tl.constexpr,
):
    program = tl.program_id(0)
    fan = program // columns  # of all groups'
    channel = (program % columns) * WIDE + tl.arange(0, WIDE)
    part = (fan % fans) * MANY + tl.arange(0, MANY)
    ours = channel < channels
    there = (part < count)[:, None] & ours[None, :]
    weight = tl.minimum(tl.maximum(rows - part.to(tl.int64) * each, 0), each).to(tl.float32)
    total = tl.sum(weight, 0)
    at = ((fan // fans).to(tl.int64) * count + part)[:, None] * channels + channel[None, :]

    centre = tl.load(parts + at, mask=there, other=0.0)
    spread = tl.load(parts + count.to(tl.int64) * groups * channels + at, mask=there, other=0.0)
    whole = tl.sum(centre * (weight / total)[:, None], 0)
    gap = tl.where(there, centre - whole[None, :], 0.0)
    squares = tl.sum(spread + gap * gap * weight[:, None], 0)  # Chan's formula: no difference of large sums
    if LAST:
        squares = squares / total
    to = fan.to(tl.int64) * channels + channel
    tl.store(merged + to, whole, mask=ours)
    tl.store(merged + fans.to(tl.int64) * groups * channels + to, squares, mask=ours)


@triton.jit(do_not_specialize=["mean_step", "var_step", "rows", "tiles", "columns", "units"])
def _backward(
    y,
    z,
    by_z,
    moments,  # (2, G, C): mean and variance of y
    by_mean,  # (G, C), and how far one group lies from the next
    mean_step,
    by_var,
    var_step,
    to_y,
    to_skip,
    mean,
    scale,
    shift,
    ceiling,
    rows,
    tiles,
    columns,
    units,
    UNIT: tl.constexpr,
    RECTIFIED: tl.constexpr,
    CAPPED: tl.constexpr,
    ADDED: tl.constexpr,
    TOLD: tl.constexpr,
    TALL: tl.constexpr,
    WIDE: tl.constexpr,
):
    channels = units * UNIT
    tile, _, channel, ours, start, inside, there = _tile(rows, tiles, columns, channels, TALL, WIDE)
    given = tl.load(y + start + inside, mask=there, other=0.0).to(tl.float32)
    own_scale = tl.load(scale + channel, mask=ours, other=0.0)
    through = tl.load(by_z + start + inside, mask=there, other=0.0).to(tl.float32)
    if RECTIFIED:
        # Where something was added, what came out tells what the rectifier let through; else what came in does.
        if ADDED:
            value = tl.load(z + start + inside, mask=there, other=0.0).to(tl.float32)
        else:
            own_mean = tl.load(mean + channel, mask=ours, other=0.0)
            own_shift = tl.load(shift + channel, mask=ours, other=0.0)
            value = (given - own_mean[None, :]) * own_scale[None, :] + own_shift[None, :]
        through = tl.where(value <= 0, 0.0, through)
        if CAPPED:
            through = tl.where(value >= ceiling, 0.0, through)
        if ADDED:
            tl.store(to_skip + start + inside, through.to(to_skip.dtype.element_ty), mask=there)
    found = through * own_scale[None, :]
    if TOLD:
        group = (tile // tiles).to(tl.int64)
        centre = tl.load(moments + group * channels + channel, mask=ours, other=0.0)
        add = tl.load(by_mean + group * mean_step + channel, mask=ours, other=0.0) / rows
        slope = 2 * tl.load(by_var + group * var_step + channel, mask=ours, other=0.0) / rows
        found += add[None, :] + slope[None, :] * (given - centre[None, :])
    tl.store(to_y + start + inside, found.to(to_y.dtype.element_ty), mask=there)


class _Cut(NamedTuple):
    """A map in tiles: by its shape alone, so that sums are the same wherever they are taken."""

    groups: int
    rows: int
    channels: int
    tall: int
    wide: int

    @classmethod
    def of(cls, y: Tensor, groups: int) -> Self:
        channels = y.shape[1]
        wide = min(WIDEST, 1 << (channels - 1).bit_length())
        return cls(groups, y.numel() // channels // groups, channels, TILE // wide, wide)

    @property
    def tiles(self) -> int:
        """Of a group's rows."""
        return _parts(self.rows, self.tall)

    @property
    def columns(self) -> int:
        return _parts(self.channels, self.wide)

    @property
    def grid(self) -> tuple[int]:
        return (self.groups * self.tiles * self.columns,)

    def arguments(self, line: Line) -> dict[str, Any]:
        """What both passes are told."""
        unit = math.gcd(self.channels, VECTOR)
        sizes = {"rows": self.rows, "tiles": self.tiles, "columns": self.columns}
        cut = {"units": self.channels // unit, "UNIT": unit, "TALL": self.tall, "WIDE": self.wide}
        own = {"mean": line.mean, "scale": line.scale, "shift": line.shift, "ceiling": float(line.ceiling)}
        return sizes | cut | own | {"RECTIFIED": line.ceiling > 0, "CAPPED": 0 < line.ceiling < math.inf} | OPTIONS


def _parts(whole: int, part: int) -> int:
    return -(-whole // part)


def forward(line: Line, *, y: Tensor, skip: Tensor | None, z: Tensor, moments: Tensor | None) -> None:
    """One launch, and one or two small ones for the statistics."""
    cut = _Cut.of(y, line.blocks)
    parts = y if moments is None else y.new_empty(2, cut.groups, cut.tiles, cut.channels, dtype=torch.float32)
    maps = {"y": y, "skip": y if skip is None else skip, "z": z, "parts": parts}  # what is not there is not touched
    kind = {"ADDED": skip is not None, "TOLD": moments is not None}
    with torch.cuda.device(y.get_device()):
        _forward[cut.grid](**maps, groups=cut.groups, **cut.arguments(line), **kind)
        if moments is not None:
            _bring_together(parts, moments, cut)


def _bring_together(parts: Tensor, moments: Tensor, cut: _Cut) -> None:
    """parts: (2, G, tiles, C), as `_forward` leaves them -> moments: (2, G, C)."""
    each, fans, columns = cut.tall, 0, _parts(cut.channels, FAN_CHANNELS)
    while fans != 1:
        count = parts.shape[2]
        fans = _parts(count, FAN)
        merged = moments if fans == 1 else parts.new_empty(2, cut.groups, fans, cut.channels)
        sizes = {"rows": cut.rows, "each": each, "count": count, "fans": fans, "columns": columns}
        sizes |= {"groups": cut.groups, "channels": cut.channels}
        kind = {"LAST": fans == 1, "MANY": FAN, "WIDE": FAN_CHANNELS}
        _merge[(cut.groups * fans * columns,)](parts, merged, **sizes, **kind, **OPTIONS)
        parts, each = merged, each * FAN


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
    """One launch."""
    cut = _Cut.of(y, line.blocks)
    moments, *gradients = [line.mean[None]] * 3 if told is None else told  # where nobody asked, they are not touched
    by_mean, by_var = (one if one.stride(1) == 1 else one.contiguous() for one in gradients)
    maps = {"y": y, "z": y if z is None else z, "by_z": by_z, "to_y": to_y}
    maps |= {"to_skip": to_y if to_skip is None else to_skip, "moments": moments, "by_mean": by_mean, "by_var": by_var}
    steps = {"mean_step": by_mean.stride(0), "var_step": by_var.stride(0)}
    kind = {"ADDED": z is not None, "TOLD": told is not None}
    with torch.cuda.device(y.get_device()):
        _backward[cut.grid](**maps, **steps, **cut.arguments(line), **kind)
