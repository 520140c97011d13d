"""EfficientNets for small images: torchvision's network with a stem of stride 1 and no stochastic depth.

FADRM's authors have no small form of it. A stem of stride 1 is what the CIFAR collections do (kuangliu's pytorch-cifar)
and what RDED does to its ResNets; all other strides stay, so the last map is 2x2 at 32 px. Blocks are not left out at
random, because a teacher that guides recovery must answer the same twice.

N images, C channels, H W pixels, K classes. Keys of the state are torchvision's.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F


class Group(NamedTuple):
    """Blocks of one width; the first carries the stride."""

    expansion: int
    kernel: int
    stride: int
    width: int
    blocks: int


B0 = (
    Group(1, 3, 1, 16, 1),
    Group(6, 3, 2, 24, 2),
    Group(6, 5, 2, 40, 2),
    Group(6, 3, 2, 80, 3),
    Group(6, 5, 1, 112, 3),
    Group(6, 5, 2, 192, 4),
    Group(6, 3, 1, 320, 1),
)


class Excitation(nn.Module):
    """Each channel weighed by what all channels are on average: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.fc2(F.silu(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()
        return x * weight


class Block(nn.Module):
    """Widen, filter each channel, weigh, narrow: (N, channels, H, W) -> (N, width, H/stride, W/stride)."""

    def __init__(self, channels: int, width: int, *, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.skips = stride == 1 and channels == width
        self.block = nn.Sequential(
            *([_filter(channels, wide, 1)] if expansion > 1 else []),
            _filter(wide, wide, kernel, stride=stride, groups=wide),
            Excitation(wide, channels // 4),
            nn.Sequential(nn.Conv2d(wide, width, 1, bias=False), nn.BatchNorm2d(width)),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x)
        return out + x if self.skips else out


class EfficientNet(nn.Module):
    """(N, C, H, W) -> logits (N, K), for any H, W from 8 px. Source: Tan and Le 2019; torchvision's efficientnet_b0."""

    def __init__(
        self,
        *,
        groups: Sequence[Group] = B0,
        stem: int = 32,
        dropout: float = 0.2,
        num_classes: int,
    ) -> None:
        super().__init__()
        widths = [stem, *(group.width for group in groups)]
        last = 4 * widths[-1]
        self.features = nn.Sequential(
            _filter(3, stem, 3),
            *(_group(width, group) for width, group in zip(widths[:-1], groups, strict=True)),
            _filter(widths[-1], last, 1),
        )
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits


def _filter(channels: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.SiLU())


def _group(channels: int, group: Group) -> nn.Sequential:
    blocks = nn.Sequential()
    for number in range(group.blocks):
        stride = group.stride if number == 0 else 1
        blocks.append(Block(channels, group.width, expansion=group.expansion, kernel=group.kernel, stride=stride))
        channels = group.width
    return blocks
