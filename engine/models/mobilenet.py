"""MobileNetV2 for small images, in FADRM's form: stem of stride 1, ReLU, a convolution where a skip changes width.

N images, C channels, H W pixels, K classes. Keys of the state follow the authors' files.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F


class Group(NamedTuple):
    """Blocks of one width; the first carries the stride."""

    expansion: int
    width: int
    blocks: int
    stride: int


GROUPS = (
    Group(1, 16, 1, 1),
    Group(6, 24, 2, 1),  # stride 2 in torchvision's network for 224 px
    Group(6, 32, 3, 2),
    Group(6, 64, 4, 2),
    Group(6, 96, 3, 1),
    Group(6, 160, 3, 2),
    Group(6, 320, 1, 1),
)


class Block(nn.Module):
    """Widen, filter each channel, narrow: (N, channels, H, W) -> (N, out, H/stride, W/stride)."""

    def __init__(self, channels: int, out: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.stride = stride
        self.conv1 = nn.Conv2d(channels, wide, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.conv3 = nn.Conv2d(wide, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if stride == 1 and channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        narrow: Tensor = self.bn3(self.conv3(out))
        return narrow + self.shortcut(x) if self.stride == 1 else narrow


class MobileNetV2(nn.Module):
    """(N, C, H, W) -> logits (N, K), for any H, W from 8 px. Source: Sandler et al. 2018; FADRM models/mobilenetv2.py."""

    def __init__(
        self,
        *,
        groups: Sequence[Group] = GROUPS,
        stem: int = 32,
        last: int = 1280,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layers = _layers(stem, groups)
        self.conv2 = nn.Conv2d(groups[-1].width, last, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(last)
        self.linear = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layers(F.relu(self.bn1(self.conv1(x))))
        out = F.relu(self.bn2(self.conv2(out)))
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


def _layers(channels: int, groups: Sequence[Group]) -> nn.Sequential:
    layers = nn.Sequential()
    for group in groups:
        for number in range(group.blocks):
            layers.append(Block(channels, group.width, group.expansion, group.stride if number == 0 else 1))
            channels = group.width
    return layers
