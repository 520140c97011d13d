"""The plain convolutional network of the distillation literature, with batch norm as in RDED.

Its depth goes with the images: 3 for 32 px, 4 for 64, 5 for 128, 6 for 224. There is one form for all of them.

N images, C channels, H W pixels, K classes. RDED's head reads the flattened map and so fixes the resolution; ours
averages the map first, because recovery changes the resolution between stages.
"""

from torch import Tensor, nn


class ConvNet(nn.Module):
    """`depth` times (3x3 convolution, batch norm, ReLU, average of 2x2): (N, C, H, W) -> logits (N, K).

    H and W from 2**depth px. Source: Gidaris and Komodakis 2018; RDED synthesize/models.py.
    """

    def __init__(self, *, depth: int, width: int = 128, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(*(_layer(3 if i == 0 else width, width) for i in range(depth)))
        self.linear = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.features(x).mean((2, 3)))
        return logits


def _layer(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.AvgPool2d(2))
