"""AlexNet for small images, in the form of the distillation literature: five convolutions, no batch norm, no hidden layers.

FADRM's authors have none. This one is DC's (Zhao et al. 2021), which DSA, MTT and DD-Ranking share. Their head reads the
flattened map and so fixes the resolution; ours averages the map first, as our ConvNet does.

N images, C channels, H W pixels, K classes.
"""

from torch import Tensor, nn


class AlexNet(nn.Module):
    """(N, C, H, W) -> logits (N, K), for any H, W from 8 px. Source: Krizhevsky et al. 2012; DC networks.py."""

    def __init__(self, *, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 128, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(128, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(192, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 192, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(192, 192, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        )
        self.linear = nn.Linear(192, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.features(x).mean((2, 3)))
        return logits
