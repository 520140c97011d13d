"""What DD-Ranking takes for granted of the data sets that it knows: its own normalisation, and its order of classes.

Source: ddranking/utils/data.py of DD-Ranking 0.2.0. Torch-free.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.datasets import CIFAR10_CLASSES, CIFAR100_CLASSES, IMAGENET, Statistics

CIFAR: Statistics = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))  # of CIFAR-10, used for CIFAR-100 too
# In its order; each as ImageNet's folder is called, and in words.
IMAGEWOOF = (
    ("n02096294", "Australian terrier"),
    ("n02093754", "Border terrier"),
    ("n02111889", "Samoyed"),
    ("n02088364", "beagle"),
    ("n02086240", "Shih-Tzu"),
    ("n02089973", "English foxhound"),
    ("n02087394", "Rhodesian ridgeback"),
    ("n02115641", "dingo"),
    ("n02099601", "golden retriever"),
    ("n02105641", "Old English sheepdog"),
)
# Name -> its statistics, and what each of its classes is called.
KNOWN: dict[str, tuple[Statistics, tuple[tuple[str, ...], ...]]] = {
    "CIFAR10": (CIFAR, tuple((name,) for name in CIFAR10_CLASSES)),
    "CIFAR100": (CIFAR, tuple((name,) for name in CIFAR100_CLASSES)),
    "ImageWoof": (IMAGENET, IMAGEWOOF),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterpart:
    """DD-Ranking's view of a data set."""

    name: str  # as DD-Ranking calls it; empty where it knows none with these classes
    statistics: Statistics
    order: tuple[int, ...]  # DD-Ranking's class index -> index of the same class here


def counterpart(classes: tuple[str, ...], own: Statistics) -> Counterpart:
    """The data set that has these classes, in whatever order; for others, everything stays as it is here."""
    places = {_plain(name): index for index, name in enumerate(classes)}
    for name, (statistics, theirs) in KNOWN.items():
        found = [places[_plain(alias)] for aliases in theirs for alias in aliases if _plain(alias) in places]
        if sorted(found) == list(range(len(classes))) and len(theirs) == len(classes):
            return Counterpart(name=name, statistics=statistics, order=tuple(found))
    return Counterpart(name="", statistics=own, order=tuple(range(len(classes))))


def _plain(name: str) -> str:
    return name.lower().replace("_", " ").replace("-", " ")
