"""Small jobs that show the whole way without a large machine."""

from __future__ import annotations

from engine.methods import Fadrm, Patches
from engine.presets.preset import Preset
from engine.sources import Digits, Torchvision
from engine.spec import Evaluation, JobSpec, Labels, Teacher

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
SMALL = (
    Preset(
        name="demo",
        group="Digits",
        title="Demo: handwritten digits",
        note="Everything from teacher to score card in about a minute on two CPU cores; nothing is fetched.",
        spec=DEMO,
    ),
    Preset(
        name="cifar10-small",
        group="CIFAR-10",
        title="CIFAR-10, 10 images per class, small network",
        note="Minutes on a GPU, about an hour on two CPU cores. CIFAR-10 is fetched on first use.",
        spec=CIFAR10_SMALL,
    ),
)
