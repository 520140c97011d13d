"""Jobs to start from, as rows of data. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from engine.methods import Fadrm, Patches
from engine.sources import Digits, Folder, Torchvision
from engine.spec import Evaluation, JobSpec, Labels, Teacher


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A job that is known to work, and what it is for."""

    name: str
    title: str
    note: str  # for whom, on what, how long
    spec: JobSpec


DEMO = JobSpec(
    dataset=Digits(resolution=16),
    ipc=10,
    method=Fadrm(budgets=(100, 100, 100, 100)),
    teachers=(Teacher(network="convnet3_w32", epochs=12, batch_size=64, optimizer="adamw", lr=0.01),),
    patches=Patches(difficulty="easy"),
    labels=Labels(epochs=100, batch_size=20),
    evaluation=Evaluation(students=("convnet3_w32",), labels=("soft",), lr=0.01, every=20),
    flip=False,
)
CIFAR10_SMALL = JobSpec(
    dataset=Torchvision(name="cifar10"),
    ipc=10,
    method=Fadrm(budgets=(100, 100, 100, 100)),
    teachers=(Teacher(network="convnet3", epochs=15, lr=0.05, weight_decay=5e-4),),
    labels=Labels(epochs=300, batch_size=20),
    evaluation=Evaluation(students=("convnet3",), labels=("soft",), every=50),
)
# The authors' settings for one teacher: their code's, where it and the paper differ (recipe.md 2.1 to 2.5).
CIFAR100_IPC10 = JobSpec(
    dataset=Torchvision(name="cifar100"),
    ipc=10,
    teachers=(Teacher(network="resnet18", epochs=50, batch_size=128, lr=0.1),),
    labels=Labels(epochs=1000),
    evaluation=Evaluation(students=("resnet18",), lr=0.001, eta=2, every=50),
)
TINY_IPC10 = JobSpec(
    dataset=Folder(path="/data/tiny-imagenet-200", resolution=64),
    ipc=10,
    method=Fadrm(budgets=(500, 500), lr=0.01),  # the paper: four times 500, and 0.25
    teachers=(Teacher(network="resnet18", epochs=150, batch_size=64, lr=0.1),),
    labels=Labels(epochs=300, statistics="running"),  # the paper: batch statistics
    evaluation=Evaluation(students=("resnet18",), lr=0.001, eta=2),
)

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="demo",
            title="Demo: handwritten digits",
            note="Everything from teacher to score card in about a minute on two CPU cores; nothing is fetched.",
            spec=DEMO,
        ),
        Preset(
            name="cifar10-small",
            title="CIFAR-10, 10 images per class, small network",
            note="Minutes on a GPU, about an hour on two CPU cores. CIFAR-10 is fetched on first use.",
            spec=CIFAR10_SMALL,
        ),
        Preset(
            name="cifar100-ipc10",
            title="CIFAR-100, 10 images per class, ResNet-18",
            note="The authors' settings; needs a GPU for hours. CIFAR-100 is fetched on first use.",
            spec=CIFAR100_IPC10,
        ),
        Preset(
            name="tiny-imagenet-ipc10",
            title="Tiny-ImageNet, 10 images per class, ResNet-18",
            note="The authors' settings; needs a GPU for about a day. Set dataset.path to your copy of the folder.",
            spec=TINY_IPC10,
        ),
    )
}
