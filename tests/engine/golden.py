"""The authors' code in numbers: stored tensors, and the small networks that they were made with (tests/golden/README.md)."""

from functools import cache
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.datasets import IMAGENET, KNOWN_STATISTICS
from engine.models import frozen
from engine.models.densenet import DenseNet
from engine.models.mobilenet import Group, MobileNetV2
from engine.models.resnet import BasicBlock, ResNet
from engine.models.shufflenet import ShuffleNetV2

FOLDER = Path(__file__).parents[1] / "golden"
CIFAR10 = KNOWN_STATISTICS["cifar10"]
__all__ = ["CIFAR10", "IMAGENET", "metadata", "network", "stored", "teacher"]


@cache
def stored(name: str) -> dict[str, Tensor]:
    return load_file(FOLDER / f"{name}.safetensors")


def metadata(name: str) -> dict[str, str]:
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        return dict(file.metadata())


def network(name: str) -> nn.Module:
    """One of the four test networks, with fresh weights."""
    match name:
        case "resnet":
            return ResNet(BasicBlock, widths=(12, 16, 24, 32), blocks=(1, 2, 1, 1), num_classes=10)
        case "shufflenet":
            return ShuffleNetV2(widths=(24, 32, 48, 64), blocks=(1, 2, 1), num_classes=10)
        case "densenet":
            return DenseNet(blocks=(1, 2, 1, 1), growth=8, num_classes=10)
        case "mobilenet":
            groups = (Group(1, 12, 1, 1), Group(3, 16, 2, 1), Group(3, 24, 2, 2), Group(3, 32, 1, 2))
            return MobileNetV2(groups=groups, stem=16, last=48, num_classes=10)
    raise ValueError(name)


def teacher(name: str) -> nn.Module:
    """One of the four test networks, trained on CIFAR-10, ready to teach."""
    prefix = f"{name}.state."
    state = {key.removeprefix(prefix): value for key, value in stored("bn_loss").items() if key.startswith(prefix)}
    model = network(name)
    model.load_state_dict(state)
    return frozen(model)
