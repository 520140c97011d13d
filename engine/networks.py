"""Facts about the networks that can teach and learn. Torch-free: planning and forms read it; a test holds it to the networks.

An operation is half a multiply-add: one multiply-add counts 2.
"""

from __future__ import annotations

from dataclasses import dataclass

# Below this side images are small, and a network takes its small form: 3x3 stem of stride 1, no max pooling.
SMALL_BELOW_PX = 128
SMALL_PX, LARGE_PX = 32, 224  # the sides of small and large images that the facts are given for
IMAGENET_CLASSES = 1000  # that torchvision's weights know
LOOKED_AT_PIXELS, LARGE_LOOKED_AT_PIXELS = 2**18, 2**22  # small forms keep ten times as much of each pixel


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What is known of a network without building it."""

    name: str
    title: str
    batch_norm: bool = True
    small_gflop: float  # one forward pass of one image of 32 px, 10 classes, small form
    large_gflop: float | None  # the same at 224 px, torchvision's form; None where there is none
    parameters_m: float  # millions, small form with 10 classes
    smallest_px: int = 8
    torchvision: bool = True  # whether its form for large images, where there is one, is torchvision's

    @property
    def small_only(self) -> bool:
        """Whether it exists below 128 px only."""
        return self.large_gflop is None

    def misfit(self, resolution: int) -> str:
        """Why it cannot take images of that side; empty when it can."""
        if resolution < self.smallest_px:
            return f"{self.name} needs images of at least {self.smallest_px} px, and these are {resolution} px"
        if resolution >= SMALL_BELOW_PX and self.small_only:
            return f"{self.name} exists below {SMALL_BELOW_PX} px only, and the images are {resolution} px"
        return ""

    def imagenet_misfit(self, resolution: int, num_classes: int) -> str:
        """Why torchvision's ImageNet weights cannot be used for such images; empty when they can."""
        if self.small_only or not self.torchvision:
            return f"torchvision has no weights of {self.name}"
        if resolution < SMALL_BELOW_PX:
            return f"torchvision's weights are for images from {SMALL_BELOW_PX} px, and these are {resolution} px"
        if num_classes != IMAGENET_CLASSES:
            return f"torchvision's weights know the {IMAGENET_CLASSES:,} classes of ImageNet, and these are {num_classes:,}"
        return ""


NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        Network(name="resnet18", title="ResNet-18", small_gflop=1.111, large_gflop=3.627, parameters_m=11.17),
        Network(
            name="resnet18_w16",
            title="ResNet-18, width 16",  # as deep as ResNet-18 and a quarter as wide: for machines without a GPU
            small_gflop=0.07009,
            large_gflop=None,
            parameters_m=0.7015,
        ),
        Network(name="resnet50", title="ResNet-50", small_gflop=2.596, large_gflop=8.174, parameters_m=23.52),
        Network(name="resnet101", title="ResNet-101", small_gflop=5.02, large_gflop=15.6, parameters_m=42.51),
        Network(
            name="wide_resnet50_2",
            title="Wide-ResNet-50-2",
            small_gflop=7.369,
            large_gflop=22.79,
            parameters_m=66.85,
        ),
        Network(name="densenet121", title="DenseNet-121", small_gflop=1.777, large_gflop=5.666, parameters_m=6.956),
        Network(name="densenet169", title="DenseNet-169", small_gflop=2.12, large_gflop=6.716, parameters_m=12.49),
        Network(name="densenet201", title="DenseNet-201", small_gflop=2.728, large_gflop=8.579, parameters_m=18.1),
        Network(name="mobilenet_v2", title="MobileNetV2", small_gflop=0.1823, large_gflop=0.599, parameters_m=2.297),
        Network(
            name="shufflenet_v2_x0_5",
            title="ShuffleNetV2 x0.5",
            small_gflop=0.0218,
            large_gflop=0.07893,
            parameters_m=0.352,
        ),
        Network(
            name="shufflenet_v2_x1_0",
            title="ShuffleNetV2 x1.0",
            small_gflop=0.09,
            large_gflop=0.2878,
            parameters_m=1.264,
        ),
        Network(
            name="efficientnet_b0",
            title="EfficientNet-B0",
            small_gflop=0.06396,
            large_gflop=0.7691,
            parameters_m=4.02,
        ),
        Network(
            name="swin_t",
            title="Swin-T",
            batch_norm=False,
            small_gflop=0.8303,
            large_gflop=8.98,
            parameters_m=27.51,
        ),
        Network(
            name="alexnet",
            title="AlexNet",
            batch_norm=False,
            small_gflop=0.49,
            large_gflop=1.42,
            parameters_m=1.843,
        ),
        Network(name="convnet3", title="ConvNet, 3 layers", small_gflop=0.1015, large_gflop=None, parameters_m=0.3008),
        Network(
            name="convnet4",
            title="ConvNet, 4 layers",
            small_gflop=0.1062,
            large_gflop=None,
            parameters_m=0.4486,
            smallest_px=16,
        ),
        Network(
            name="convnet5",
            title="ConvNet, 5 layers",
            small_gflop=0.1074,
            large_gflop=5.26,
            parameters_m=0.5965,
            smallest_px=32,
            torchvision=False,
        ),
        Network(
            name="convnet6",
            title="ConvNet, 6 layers",
            small_gflop=0.1076,
            large_gflop=5.275,
            parameters_m=0.7443,
            smallest_px=64,
            torchvision=False,
        ),
        Network(
            name="convnet3_w32",
            title="ConvNet, 3 layers, width 32",
            small_gflop=0.007668,
            large_gflop=None,
            parameters_m=0.01991,
        ),
    )
}


def network_title(name: str) -> str:
    """`ResNet-18` for `resnet18`: for people. A name that is not known stays as it is."""
    return NETWORKS[name].title if name in NETWORKS else name


def forward_flop(name: str, resolution: int) -> float:
    """Operations of one forward pass of one image of resolution x resolution px: proportional to its pixels.

    Raises ValueError when the network has no form for that resolution.
    """
    network = NETWORKS[name]
    if resolution < SMALL_BELOW_PX:
        return network.small_gflop * 1e9 * (resolution / SMALL_PX) ** 2
    if network.large_gflop is None:
        raise ValueError(f"{name} exists below {SMALL_BELOW_PX} px only, and {resolution} px was asked for")
    return network.large_gflop * 1e9 * (resolution / LARGE_PX) ** 2


def looked_at_together(side: int, device: str) -> int:
    """How many images of that side, px, a network that does not learn takes in one go. device: cpu, or cuda."""
    pixels = LARGE_LOOKED_AT_PIXELS if device == "cuda" and side >= SMALL_BELOW_PX else LOOKED_AT_PIXELS
    return max(1, pixels // side**2)
