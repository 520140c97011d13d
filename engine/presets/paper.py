"""The rows of the paper's Tables 8 to 18 (arXiv 2506.24125), made from small tables; `official` is what its code does else.

A row is a data set, an ipc and a method. Where the authors' code (FADRM@f445e38) differs from the tables in a setting, the
row is there a second time with the code's, whose pixels are rounded down as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.datasets import Facts
from engine.methods import TITLES
from engine.networks import network_title
from engine.presets.preset import Preset
from engine.sources import DatasetSpec, Folder, Torchvision
from engine.spec import TORCHVISION, JobSpec, Teacher

IPCS = (1, 10, 50)
STUDENTS = ("resnet18", "resnet50", "resnet101")
Family = Literal["fadrm", "fadrm+"]
FAMILIES: dict[Family, str] = {"fadrm": "fadrm", "fadrm+": "fadrm-plus"}  # method -> word in the preset's name
# Table 9: AdamW's learning rate and eta.
SETTINGS = {"S1": (0.001, 1.0), "S2": (0.001, 2.0), "S3": (0.0005, 1.0), "S4": (0.0005, 2.0)}
# Table 8: FADRM+'s teachers; FADRM's is the first of them.
SMALL_COMMITTEE = ("resnet18", "densenet121", "shufflenet_v2_x0_5", "mobilenet_v2")
LARGE_COMMITTEE = ("resnet18", "densenet121", "shufflenet_v2_x1_0", "mobilenet_v2")
PLACE = "Set dataset.path to your copy: train/ and val/, each with a folder a class."


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """A data set of the paper, and its settings."""

    name: str
    title: str
    dataset: DatasetSpec
    where: str  # the images come from
    classes: int
    train_per_class: int  # about, where classes differ
    test_per_class: int
    resolution: int  # px
    teacher: Teacher  # Tables 10, 12, 14, 16, for every network of the committee
    committee: tuple[str, ...]
    epochs: tuple[int, int, int] = (300, 300, 300)  # of labels and students, by ipc
    students: tuple[str, str, str]  # by ipc: the settings of ResNet-18, 50 and 101 (Tables 11, 13, 15, 17, 18)
    gpu_hours: tuple[int, int, int]  # by ipc, roughly, of one large GPU

    @property
    def facts(self) -> Facts:
        """What planning knows of such a set."""
        return Facts(
            title=self.title,
            classes=tuple(f"class {index}" for index in range(self.classes)),
            train_per_class=(self.train_per_class,) * self.classes,
            test_per_class=(self.test_per_class,) * self.classes,
            resolution=self.resolution,
            digest=self.name,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """Where the code differs from the tables (arXiv 2506.24125, tables 8 to 16), and what the spec says then."""

    collection: str
    method: Family | None = None  # both
    ipc: int | None = None  # all
    says: str
    patch: dict[str, Any] = field(default_factory=dict)
    committee: tuple[str, ...] | None = None


COLLECTIONS = (
    Collection(
        name="cifar100",
        title="CIFAR-100",
        dataset=Torchvision(name="cifar100"),
        where="CIFAR-100 is fetched on first use.",
        classes=100,
        train_per_class=500,
        test_per_class=100,
        resolution=32,
        teacher=Teacher(epochs=50, batch_size=128, lr=0.1, crop="padded"),
        committee=SMALL_COMMITTEE,
        epochs=(1000, 1000, 1000),
        students=("S4 S1 S3", "S2 S2 S3", "S1 S1 S3"),
        gpu_hours=(2, 5, 20),
    ),
    Collection(
        name="tiny-imagenet",
        title="Tiny-ImageNet",
        dataset=Folder(path="/data/tiny-imagenet-200", resolution=64),
        where="Set dataset.path to your copy, as it is unpacked.",
        classes=200,
        train_per_class=500,
        test_per_class=50,
        resolution=64,
        teacher=Teacher(epochs=150, batch_size=64, lr=0.1, crop="padded"),
        committee=SMALL_COMMITTEE,
        epochs=(1000, 300, 300),
        students=("S2 S4 S4", "S2 S4 S4", "S1 S3 S3"),
        gpu_hours=(9, 15, 50),
    ),
    Collection(
        name="imagenette",
        title="ImageNette",
        dataset=Folder(path="/data/imagenette2", resolution=224),
        where=PLACE,
        classes=10,
        train_per_class=947,
        test_per_class=392,
        resolution=224,
        teacher=Teacher(epochs=300, batch_size=128, lr=0.01, crop="resized"),
        committee=LARGE_COMMITTEE,
        students=("S4 S4 S4", "S3 S3 S4", "S4 S3 S2"),
        gpu_hours=(1, 2, 3),
    ),
    Collection(
        name="imagewoof",
        title="ImageWoof",
        dataset=Folder(path="/data/imagewoof2", resolution=224),
        where=PLACE,
        classes=10,
        train_per_class=902,
        test_per_class=393,
        resolution=224,
        teacher=Teacher(epochs=50, batch_size=128, lr=0.1, crop="resized"),
        committee=LARGE_COMMITTEE,
        students=("S4 S4 S1", "S3 S3 S4", "S2 S3 S3"),
        gpu_hours=(1, 1, 2),
    ),
    Collection(
        name="imagenet-1k",
        title="ImageNet-1K",
        dataset=Folder(path="/data/imagenet", resolution=224),
        where=f"{PLACE} Teachers are torchvision's own.",
        classes=1000,
        train_per_class=1281,
        test_per_class=50,
        resolution=224,
        teacher=Teacher(weights=TORCHVISION),
        committee=LARGE_COMMITTEE,
        students=("S2 S4 S4", "S2 S2 S2", "S1 S1 S3"),
        gpu_hours=(9, 40, 170),
    ),
)
_BATCH_OF_TEN = {"labels": {"batch_size": 10}}
DEVIATIONS = (
    Deviation(
        collection="tiny-imagenet",
        method="fadrm",
        says="two stages of 500 iterations at a learning rate of 0.01 instead of four at 0.25; labels from running "
        "statistics (the scripts at 50 images per class, the only ones published)",
        patch={"method": {"budgets": (500, 500), "lr": 0.01}, "labels": {"statistics": "running"}},
    ),
    Deviation(
        collection="tiny-imagenet",
        method="fadrm+",
        ipc=1,
        says="no DenseNet among the teachers",
        committee=("resnet18", "shufflenet_v2_x0_5", "mobilenet_v2"),
    ),
    Deviation(
        collection="tiny-imagenet", ipc=1, says="labels of 300 epochs, not 1,000", patch={"labels": {"epochs": 300}}
    ),
    Deviation(
        collection="imagenette",
        method="fadrm",
        says="a learning rate of 0.05 instead of 0.25 (the script at 50 images per class, the only one published)",
        patch={"method": {"lr": 0.05}},
    ),
    Deviation(collection="imagenette", says="batches of 10 instead of 16", patch=_BATCH_OF_TEN),
    Deviation(collection="imagewoof", says="batches of 10 instead of 16", patch=_BATCH_OF_TEN),
    Deviation(
        collection="imagewoof",
        ipc=10,
        says="ResNet-50 at a learning rate of 0.005, ten times the table's, which may be a slip",
        patch={"evaluation": {"rates": {"resnet50": {"lr": 0.005, "eta": 1.0}}}},
    ),
    Deviation(
        collection="imagenet-1k",
        ipc=1,
        says="ResNet-101 at a learning rate of 0.0035",
        patch={"evaluation": {"rates": {"resnet101": {"lr": 0.0035, "eta": 2.0}}}},
    ),
    Deviation(
        collection="imagenet-1k",
        method="fadrm+",
        ipc=1,
        says="AlexNet among the teachers instead of DenseNet; it has no batch norm and counts by its logits alone",
        committee=("resnet18", "mobilenet_v2", "shufflenet_v2_x1_0", "alexnet"),
    ),
)


def _spec(collection: Collection, place: int, method: Family) -> dict[str, Any]:
    """The spec of a row as the tables have it."""
    rates = [SETTINGS[setting] for setting in collection.students[place].split()]
    (lr, eta), *others = rates
    return {
        "dataset": collection.dataset.model_dump(),
        "ipc": IPCS[place],
        "method": {"method": method, "batch": min(100, collection.classes)},
        "teachers": _teachers(collection, collection.committee if method == "fadrm+" else collection.committee[:1]),
        "labels": {"epochs": collection.epochs[place], "batch_size": 16},
        "evaluation": {
            "students": STUDENTS,
            "labels": ("soft",),
            "lr": lr,
            "eta": eta,
            "rates": {name: {"lr": lr, "eta": eta} for name, (lr, eta) in zip(STUDENTS[1:], others, strict=True)},
        },
    }


def _teachers(collection: Collection, networks: tuple[str, ...]) -> list[dict[str, Any]]:
    return [collection.teacher.model_dump() | {"network": network} for network in networks]


def _rows() -> Iterator[Preset]:
    for collection in COLLECTIONS:
        for place, ipc in enumerate(IPCS):
            for method, word in FAMILIES.items():
                title = f"{collection.title}, {ipc} per class, {TITLES[method]}"
                spec = _spec(collection, place, method)
                found = [
                    deviation
                    for deviation in DEVIATIONS
                    if deviation.collection == collection.name
                    and deviation.method in (None, method)
                    and deviation.ipc in (None, ipc)
                ]
                base = f"{collection.name}-ipc{ipc}-{word}"
                paper = f"The tables' settings (8 to 18), with {_named(spec)}. "
                agrees = (
                    "The authors' code differs: see the official row."
                    if found
                    else "The authors' code agrees, but rounds down."
                )
                yield Preset(
                    name=f"{base}-paper",
                    group=collection.title,
                    title=f"{title}, as the paper",
                    note=f"{paper}{agrees} {_cost(collection, place)} {collection.where}",
                    spec=JobSpec.model_validate(spec),
                )
                if found:
                    official = _as_code(collection, spec, found)
                    says = "; ".join(deviation.says for deviation in found)
                    yield Preset(
                        name=f"{base}-official",
                        group=collection.title,
                        title=f"{title}, as the code",
                        note=f"The authors' code where it differs from the paper: {says}; pixels rounded down. "
                        f"{_cost(collection, place)} {collection.where}",
                        spec=JobSpec.model_validate(official),
                    )


def _as_code(collection: Collection, spec: dict[str, Any], found: list[Deviation]) -> dict[str, Any]:
    spec = merged(spec, {"method": {"rounding": "floor"}})
    for deviation in found:
        spec = merged(spec, deviation.patch)
        if deviation.committee:
            spec["teachers"] = _teachers(collection, deviation.committee)
    return spec


def merged(base: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """One inside the other: objects are merged, everything else is replaced."""
    both = {
        name: merged(base[name], value) for name, value in patch.items() if isinstance(value, dict) and name in base
    }
    return base | patch | both


def _named(spec: dict[str, Any]) -> str:
    names = [network_title(teacher["network"]) for teacher in spec["teachers"]]
    return f"{names[0]} as teacher" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} as teachers"


def _cost(collection: Collection, place: int) -> str:
    hours = collection.gpu_hours[place]
    return f"About {hours} hour{'s' if hours > 1 else ''} of a large GPU, most for three runs of three students."


PAPER = tuple(_rows())
