"""DenseNets for small images, in FADRM's form: a 3x3 stem of stride 1, no norm and no pooling behind it.

N images, C channels, H W pixels, K classes. Keys of the state follow the authors' files.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Bottleneck(nn.Module):
    """Adds `growth` channels, in front of the ones that came in: (N, C, H, W) -> (N, growth + C, H, W)."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv1(F.relu(self.bn1(x)))
        new = self.conv2(F.relu(self.bn2(new)))
        return torch.cat([new, x], 1)


class Transition(nn.Module):
    """Fewer channels, half the height and width: (N, C, H, W) -> (N, out, H/2, W/2)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)


class DenseNet(nn.Module):
    """(N, C, H, W) -> logits (N, K), for any H, W from 8 px. Source: Huang et al. 2016; FADRM models/densenet.py."""

    def __init__(
        self,
        *,
        blocks: Sequence[int] = (6, 12, 24, 16),
        growth: int = 32,
        num_classes: int,
    ) -> None:
        super().__init__()
        width = 2 * growth
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        for number, count in enumerate(blocks, 1):
            self.add_module(f"dense{number}", _dense(width, growth, count))
            width += count * growth
            if number < len(blocks):
                self.add_module(f"trans{number}", Transition(width, width // 2))
                width //= 2
        self.bn = nn.BatchNorm2d(width)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(x)
        for name, part in self.named_children():
            if name.startswith(("dense", "trans")):
                out = part(out)
        out = F.relu(self.bn(out))
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


def _dense(channels: int, growth: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Bottleneck(channels + i * growth, growth) for i in range(count)))
