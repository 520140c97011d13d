"""ShuffleNetV2 for small images, in FADRM's form: a 3x3 stem of stride 1 and no max pooling.

N images, C channels, H W pixels, K classes. Keys of the state follow the authors' files.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def shuffled(x: Tensor) -> Tensor:
    """The two halves of the channels, interleaved: (N, C, H, W) -> (N, C, H, W)."""
    count, channels, height, width = x.shape
    return x.view(count, 2, channels // 2, height, width).transpose(1, 2).reshape(count, channels, height, width)


class BasicBlock(nn.Module):
    """One half of the channels passes, the other is filtered: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        passing, out = x.chunk(2, 1)
        out = F.relu(self.bn1(self.conv1(out)))
        out = self.bn2(self.conv2(out))
        out = F.relu(self.bn3(self.conv3(out)))
        return shuffled(torch.cat([passing, out], 1))


class DownBlock(nn.Module):
    """Half the height and width, by two branches: (N, channels, H, W) -> (N, out, H/2, W/2)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        half = out // 2
        self.conv1 = nn.Conv2d(channels, channels, 3, 2, 1, groups=channels, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(channels, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = nn.Conv2d(half, half, 3, 2, 1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        left = F.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))))
        right = F.relu(self.bn3(self.conv3(x)))
        right = self.bn4(self.conv4(right))
        right = F.relu(self.bn5(self.conv5(right)))
        return shuffled(torch.cat([left, right], 1))


class ShuffleNetV2(nn.Module):
    """(N, C, H, W) -> logits (N, K), for any H, W from 8 px. Source: Ma et al. 2018; FADRM models/shufflenetv2.py."""

    def __init__(
        self,
        *,
        widths: Sequence[int],
        blocks: Sequence[int] = (3, 7, 3),
        num_classes: int,
    ) -> None:
        """widths: of the three stages and of the last convolution. blocks: of each stage, behind its DownBlock."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 24, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(24)
        self.layer1 = _stage(24, widths[0], blocks[0])
        self.layer2 = _stage(widths[0], widths[1], blocks[1])
        self.layer3 = _stage(widths[1], widths[2], blocks[2])
        self.conv2 = nn.Conv2d(widths[2], widths[3], 1, bias=False)
        self.bn2 = nn.BatchNorm2d(widths[3])
        self.linear = nn.Linear(widths[3], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.relu(self.bn2(self.conv2(out)))
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


def _stage(channels: int, width: int, count: int) -> nn.Sequential:
    return nn.Sequential(DownBlock(channels, width), *(BasicBlock(width) for _ in range(count)))
