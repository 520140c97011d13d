"""Swin transformers for small images: torchvision's network with patches of 2 px, windows of 4x4 and no stochastic depth.

FADRM's authors have no small form of it. Patches of 2 px and windows of 4 are what the literature on transformers for
small data sets takes (Lee et al. 2021): the maps are 16, 8, 4 and 2 a side at 32 px. Sides that windows do not divide
are padded, so any resolution works.

N images, C channels, H W pixels or places of a map, K classes, M heads, T = window * window places, B windows of all
images. Keys of the state are torchvision's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FAR = -100.0  # added to the attention between places that the cyclic shift has brought together


class WindowAttention(nn.Module):
    """Every place looks at those in its window: (N, H, W, C) -> (N, H, W, C). With a shift, windows straddle those before."""

    relative_position_index: Tensor  # (T * T,) int64: which row of the table is for a pair of places

    def __init__(self, width: int, heads: int, *, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        place = torch.cartesian_prod(torch.arange(window), torch.arange(window))
        offset = place[:, None] - place[None] + window - 1
        self.register_buffer("relative_position_index", (offset[..., 0] * (2 * window - 1) + offset[..., 1]).flatten())

    def forward(self, x: Tensor) -> Tensor:
        height, width, side = x.shape[1], x.shape[2], self.window
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        shifts = [self.shift if length > side else 0 for length in x.shape[1:3]]  # one window holds all there is
        moved = x.roll((-shifts[0], -shifts[1]), (1, 2))
        windows = self._attended(_windows(moved, side), _strangers(moved, shifts, side))
        whole = windows.view(len(x), x.shape[1] // side, x.shape[2] // side, side, side, -1)
        return whole.transpose(2, 3).reshape(x.shape).roll(tuple(shifts), (1, 2))[:, :height, :width]

    def _attended(self, windows: Tensor, strangers: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C). strangers: (B / N, T, T), added to the attention of each image's windows."""
        count, places, width = windows.shape
        query, key, value = self.qkv(windows).view(count, places, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index].view(places, places, -1).permute(2, 0, 1)
        attention = (query * (width // self.heads) ** -0.5) @ key.transpose(-2, -1) + bias  # (B, M, T, T)
        attention = attention.view(-1, len(strangers), self.heads, places, places) + strangers[:, None]
        out = attention.view(count, self.heads, places, places).softmax(-1).to(value.dtype) @ value
        attended: Tensor = self.proj(out.transpose(1, 2).reshape(count, places, width))
        return attended


class Block(nn.Module):
    """Attention, then two linear layers, both past a skip: (N, H, W, C) -> (N, H, W, C)."""

    def __init__(self, width: int, heads: int, *, window: int, shift: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window=window, shift=shift)
        self.norm2 = nn.LayerNorm(width)
        # the parts without weights keep the keys torchvision's: mlp.0 and mlp.3
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Merging(nn.Module):
    """Four neighbours become one place: (N, H, W, C) -> (N, H/2, W/2, 2 C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        four = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        merged: Tensor = self.reduction(self.norm(torch.cat(four, -1)))
        return merged


class Patches(nn.Sequential):
    """An image cut into patches: (N, C, H, W) -> (N, H/patch, W/patch, width)."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__(nn.Conv2d(3, width, patch, patch), nn.Identity(), nn.LayerNorm(width))

    def forward(self, x: Tensor) -> Tensor:
        cut: Tensor = self[2](self[0](x).permute(0, 2, 3, 1))
        return cut


class Swin(nn.Module):
    """(N, C, H, W) -> logits (N, K), for any H, W from 8 px. Source: Liu et al. 2021; torchvision's swin_t."""

    def __init__(
        self,
        *,
        width: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        patch: int = 2,
        window: int = 4,
        num_classes: int,
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = [Patches(width, patch)]
        for depth, count in zip(depths, heads, strict=True):
            if len(parts) > 1:
                parts.append(Merging(width))
                width *= 2
            shifts = (window // 2 if number % 2 else 0 for number in range(depth))
            parts.append(nn.Sequential(*(Block(width, count, window=window, shift=shift) for shift in shifts)))
        self.features = nn.Sequential(*parts)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.features(x)).mean((1, 2)))
        return logits


def _windows(x: Tensor, side: int) -> Tensor:
    """(N, H, W, C) -> (N * H/side * W/side, side * side, C)."""
    count, height, width, channels = x.shape
    cut = x.view(count, height // side, side, width // side, side, channels)
    return cut.transpose(2, 3).reshape(-1, side * side, channels)


def _strangers(x: Tensor, shifts: Sequence[int], side: int) -> Tensor:
    """(windows of one image, T, T): FAR between places of one window that were not neighbours before the shift, else 0."""
    bands = []
    for length, shift in zip(x.shape[1:3], shifts, strict=True):
        place = torch.arange(length, device=x.device)
        bands.append((place >= length - side).long() + (place >= length - shift))
    region = _windows((3 * bands[0][:, None] + bands[1])[None, :, :, None], side)[..., 0]
    return (region[:, :, None] != region[:, None]) * FAR
