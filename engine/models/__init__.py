"""Builds the networks of `engine.networks`. Below 128 px FADRM's small forms, from there torchvision's, unmodified.

Where FADRM's authors have no small form, the network's own file says which one was chosen, and why.

N images, C channels, H W pixels, K classes. Every network averages its last map, so any resolution of a form works.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from engine.models.alexnet import AlexNet
from engine.models.convnet import ConvNet
from engine.models.densenet import DenseNet
from engine.models.efficientnet import EfficientNet
from engine.models.mobilenet import MobileNetV2
from engine.models.resnet import BasicBlock, Bottleneck, ResNet, WideBottleneck
from engine.models.shufflenet import ShuffleNetV2
from engine.models.swin import Swin
from engine.networks import NETWORKS, SMALL_BELOW_PX

SMALL: dict[str, Callable[..., nn.Module]] = {
    "resnet18": partial(ResNet, BasicBlock, blocks=(2, 2, 2, 2)),
    "resnet18_w16": partial(ResNet, BasicBlock, blocks=(2, 2, 2, 2), widths=(16, 32, 64, 128)),
    "resnet50": partial(ResNet, Bottleneck, blocks=(3, 4, 6, 3)),
    "resnet101": partial(ResNet, Bottleneck, blocks=(3, 4, 23, 3)),
    "wide_resnet50_2": partial(ResNet, WideBottleneck, blocks=(3, 4, 6, 3)),
    "densenet121": DenseNet,
    "densenet169": partial(DenseNet, blocks=(6, 12, 32, 32)),
    "densenet201": partial(DenseNet, blocks=(6, 12, 48, 32)),
    "mobilenet_v2": MobileNetV2,
    "shufflenet_v2_x0_5": partial(ShuffleNetV2, widths=(48, 96, 192, 1024)),
    "shufflenet_v2_x1_0": partial(ShuffleNetV2, widths=(116, 232, 464, 1024)),
    "efficientnet_b0": EfficientNet,
    "swin_t": Swin,
    "alexnet": AlexNet,
    "convnet3": partial(ConvNet, depth=3),
    "convnet4": partial(ConvNet, depth=4),
    "convnet5": partial(ConvNet, depth=5),
    "convnet6": partial(ConvNet, depth=6),
    "convnet3_w32": partial(ConvNet, depth=3, width=32),
}


def build(name: str, *, num_classes: int, resolution: int, seed: int | None = None) -> nn.Module:
    """A network with fresh weights, on the CPU: images (N, 3, H, W) of about `resolution` px -> logits (N, K).

    The weights are drawn from `seed` alone; without one, from torch's own stream.
    Raises ValueError when there is no such network, or none for that resolution.
    """
    if name not in NETWORKS:
        raise ValueError(f"{name!r} is no network this engine knows: choose one of {', '.join(sorted(NETWORKS))}")
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        if resolution < SMALL_BELOW_PX:
            return SMALL[name](num_classes=num_classes)
        return _large(name, num_classes=num_classes)


def frozen(model: nn.Module) -> nn.Module:
    """The same model, ready to teach: eval mode, and no gradient of its weights is ever computed."""
    return model.eval().requires_grad_(False)


def _large(name: str, *, num_classes: int) -> nn.Module:
    if NETWORKS[name].small_only:
        raise ValueError(f"{name} exists below {SMALL_BELOW_PX} px only: choose a network of torchvision's")
    if not NETWORKS[name].torchvision:  # one form for all sides
        return SMALL[name](num_classes=num_classes)
    import torchvision  # here: the small forms, and so most downloads, do without

    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    return model
