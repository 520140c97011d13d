"""ResNets for small images, in FADRM's form: a 3x3 stem of stride 1 and no max pooling.

N images, C channels, H W pixels, K classes. Keys of the state follow the authors' files (`linear`, `shortcut`).
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


def _skip(channels: int, out: int, stride: int) -> nn.Sequential:
    """What carries a block's input past it: nothing to do, or a 1x1 convolution where the shape changes."""
    if stride == 1 and channels == out:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a skip connection: (N, channels, H, W) -> (N, width, H/stride, W/stride)."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _skip(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + self.shortcut(x)
        return F.relu(out)


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride), 1x1: (N, channels, H, W) -> (N, 4 width, H/stride, W/stride)."""

    expansion = 4
    widening = 1  # of the 3x3 convolution

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        inner = self.widening * width
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut = _skip(channels, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out)) + self.shortcut(x)
        return F.relu(out)


class WideBottleneck(Bottleneck):
    """Twice as wide inside, for Wide-ResNet-50-2: the authors have no small form, so ours changes as their ResNet-50 does.

    Source: Zagoruyko and Komodakis 2016; torchvision's wide_resnet50_2.
    """

    widening = 2


class ResNet(nn.Module):
    """(N, C, H, W) -> logits (N, K), for any H, W from 8 px. Source: He et al. 2015; FADRM models/resnet.py."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        *,
        blocks: Sequence[int],
        widths: Sequence[int] = (64, 128, 256, 512),
        num_classes: int,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        wide = [width * block.expansion for width in widths]
        self.layer1 = _stage(block, widths[0], widths[0], blocks[0], stride=1)
        self.layer2 = _stage(block, wide[0], widths[1], blocks[1], stride=2)
        self.layer3 = _stage(block, wide[1], widths[2], blocks[2], stride=2)
        self.layer4 = _stage(block, wide[2], widths[3], blocks[3], stride=2)
        self.linear = nn.Linear(wide[3], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            out = stage(out)
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


def _stage(
    block: type[BasicBlock] | type[Bottleneck], channels: int, width: int, count: int, *, stride: int
) -> nn.Sequential:
    first = block(channels, width, stride)
    return nn.Sequential(first, *(block(width * block.expansion, width, 1) for _ in range(count - 1)))
