"""Convolutions as a CPU likes them: the same numbers by another way, where torch's own is slow there.

Layers change their class where they are, as torch's parametrizations do: a new layer in their place would need the place
(torchvision's networks are not ours to build) and ten arguments.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NARROW_PX = {1: 8, 2: 14}  # stride -> width of maps, up to which it pays to lay them side by side (measured)


class Exact(nn.Conv2d):
    """Computes in fp32 whatever surrounds it, and answers in the type that it was given.

    For depthwise and strided ones, whose gradient in bf16 takes a hundred times as long (measured: benchmarks/NOTES.md).
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float()).to(input.dtype)


class SideBySide(nn.Conv2d):
    """Lays the maps of a batch next to each other, zeros between them, and sees them as one wide map, where they are narrow.

    Matrix units (AMX) work on sixteen pixels of a row at once, and torch's convolutions fill them with one row of one map:
    of a map that is 4 px wide they use a quarter.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        if not self._pays(input):
            return super().forward(input)
        stride, kernel = self.stride[0], self.kernel_size[0]
        padding = kernel // 2
        count, channels, high, wide = input.shape
        room = -(-(wide + padding) // stride) * stride  # of a map and the zeros behind it
        maps = F.pad(input, (0, room - wide)).permute(2, 0, 3, 1).reshape(1, high, count * room, channels)
        seen = super().forward(maps.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)[0, :, : count * room // stride]
        parts = torch.unflatten(seen, 1, (count, room // stride))[:, :, : (wide + 2 * padding - kernel) // stride + 1]
        return parts.permute(1, 3, 0, 2).contiguous(memory_format=torch.channels_last)

    def _pays(self, maps: Tensor) -> bool:
        products = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else self.weight.dtype
        return (
            maps.device.type == "cpu"
            and maps.dim() == 4
            and len(maps) > 1
            and maps.shape[3] <= NARROW_PX[self.stride[0]]
            and products == torch.bfloat16
        )


def suited_to_cpu(layer: nn.Module, *, matrix_units: bool) -> type[nn.Module]:
    """The class that a layer had better be of on a CPU: its own, or one of the above."""
    if type(layer) is not nn.Conv2d:
        return type(layer)
    if layer.groups > 1:
        return nn.Conv2d if layer.stride == (1, 1) else Exact
    square = all(len(set(values)) == 1 for values in (layer.stride, layer.kernel_size, layer.padding))
    plain = square and layer.dilation == (1, 1) and layer.padding_mode == "zeros" and layer.stride[0] in NARROW_PX
    padded = isinstance(layer.padding, tuple) and layer.padding[0] == layer.kernel_size[0] // 2 > 0
    return SideBySide if matrix_units and plain and padded else nn.Conv2d
