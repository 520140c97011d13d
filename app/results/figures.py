"""What the papers report, as rows of data: top-1 on the real test set, %. A row is found by what a job's spec says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from engine.networks import network_title

FADRM_1 = "FADRM (arXiv 2506.24125), Table 1"
FADRM_2 = "FADRM (arXiv 2506.24125), Table 2 right"
RDED_2 = "RDED (arXiv 2312.03526), Table 2"
CV_DD = "CV-DD (arXiv 2501.07575), its repository's table"
IPCS = (1, 10, 50)
COLLECTIONS = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny-imagenet": "Tiny-ImageNet",
    "imagenette": "ImageNette",
    "imagewoof": "ImageWoof",
    "imagenet-1k": "ImageNet-1K",
}
FOLDERS = {"tiny-imagenet-200": "tiny-imagenet", "imagenette2": "imagenette", "imagewoof2": "imagewoof"}
RESIDUAL = ("fadrm", "fadrm+")


class PaperOut(BaseModel):
    """What a paper reports for the same setting, or for the nearest that it has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    top1_pct: float
    std: float | None = Field(None, description="As the paper gives it.")
    source: str
    setting: str = Field(description="Data set, images per class and network that the figure is of.")
    alike: bool = Field(description="Whether data set, images per class, method and network are this job's.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of one paper."""

    source: str
    dataset: str
    ipc: int
    method: str
    student: str
    top1_pct: float
    std: float | None = None

    def out(self, *, alike: bool) -> PaperOut:
        """As it is told."""
        setting = f"{COLLECTIONS[self.dataset]}, {self.ipc} per class, {network_title(self.student)}"
        return PaperOut(top1_pct=self.top1_pct, std=self.std, source=self.source, setting=setting, alike=alike)


# Rows: images per class 1, 10, 50. Columns: RDED, EDC, CV-DD, FADRM, FADRM+ by ResNet-18, then by ResNet-50 and ResNet-101.
TABLE_1_METHODS = ("rded", "edc", "cv-dd", *RESIDUAL)
TABLE_1_STUDENTS = ("resnet18", "resnet50", "resnet101")
TABLE_1 = {
    "cifar100": """
        17.1 39.7 28.3 31.8 40.6  10.9 36.1 28.7 27.3 37.4  11.2 32.3 29.0 29.2 40.1
        56.9 63.7 62.7 67.4 67.9  41.6 62.1 61.5 66.5 67.4  54.1 61.7 63.8 68.3 68.9
        66.8 68.6 67.1 71.0 71.3  64.0 69.4 68.2 71.5 72.1  67.9 68.5 67.6 71.9 72.1""",
    "tiny-imagenet": """
        11.8 39.2 30.6 28.6 40.4   8.2 35.9 25.1 28.4 39.4   9.6 40.6 28.0 27.9 41.9
        41.9 51.2 47.8 48.9 52.8  38.4 50.2 43.8 47.3 53.7  22.9 51.6 47.4 47.8 53.6
        58.2 57.2 54.1 56.4 58.7  45.6 58.8 54.7 57.0 60.3  41.2 58.6 54.1 57.2 60.8""",
    "imagenette": """
        35.8 - 36.2 36.2 39.2  27.0 - 27.6 31.1 31.9  25.1 - 25.3 26.3 29.3
        61.4 - 64.1 64.8 69.0  55.0 - 61.4 64.1 68.1  54.0 - 61.0 61.9 63.7
        80.4 - 81.6 83.6 84.6  81.8 - 82.0 84.1 85.4  75.0 - 80.0 80.3 82.3""",
    "imagewoof": """
        20.8 - 21.4 21.0 22.8  17.8 - 19.1 19.5 19.9  19.6 - 19.9 20.0 21.8
        38.5 - 49.3 44.5 57.3  35.2 - 47.8 44.9 54.1  31.3 - 42.6 40.4 51.4
        68.5 - 71.9 72.3 72.6  67.0 - 71.2 71.0 71.7  59.1 - 69.9 70.3 70.6""",
    "imagenet-1k": """
         6.6 12.8  9.2  9.0 14.7   8.0 13.3 10.0 12.2 16.2   5.9 12.2  7.0  6.8 14.1
        42.0 48.6 46.0 48.4 50.9  49.7 54.1 51.3 54.5 57.5  48.3 51.7 51.7 54.8 58.1
        56.5 58.0 59.5 60.1 61.2  62.0 64.3 63.9 65.4 66.9  61.2 64.9 62.7 66.0 67.0""",
}
# Table 2 right, FADRM+ with patches of four crops, ImageNet-1K at 10; the networks that Table 1 lacks.
TABLE_2_RIGHT = {
    "efficientnet_b0": 51.9,
    "mobilenet_v2": 45.5,
    "shufflenet_v2_x0_5": 30.2,
    "swin_t": 39.1,
    "wide_resnet50_2": 59.1,
    "densenet121": 55.4,
    "densenet169": 58.5,
    "densenet201": 59.7,
}
# RDED's Table 2: (data set, method, student) -> mean and spread at 1, 10, 50. Where Table 1 has a row, only what that lacks.
RDED_TABLE_2 = {
    ("cifar10", "rded", "resnet18"): "22.9 0.4  37.1 0.3  62.1 0.1",
    ("cifar10", "rded", "resnet101"): "18.7 0.1  33.7 0.3  51.6 0.4",
    ("cifar10", "rded", "convnet3"): "23.5 0.3  50.2 0.3  68.4 0.1",
    ("cifar10", "sre2l", "resnet18"): "16.6 0.9  29.3 0.5  45.0 0.7",
    ("cifar10", "sre2l", "resnet101"): "13.7 0.2  24.3 0.6  34.9 0.1",
    ("cifar100", "rded", "convnet3"): "19.6 0.3  48.1 0.3  57.0 0.1",
    ("cifar100", "sre2l", "resnet18"): "6.6 0.2  27.0 0.4  50.2 0.4",
    ("tiny-imagenet", "rded", "convnet4"): "12.0 0.1  39.6 0.1  47.6 0.2",
    ("tiny-imagenet", "sre2l", "resnet18"): "2.62 0.1  16.1 0.2  41.1 0.4",
    ("imagenet-1k", "sre2l", "resnet18"): "0.1 0.1  21.3 0.6  46.8 0.2",
}
CV_DD_TABLE = {
    ("cifar10", "sre2l++", "resnet18"): (24.4, 42.5, 63.0),
    ("cifar10", "cv-dd", "resnet18"): (26.1, 44.6, 70.1),
    ("cifar100", "sre2l++", "resnet18"): (13.5, 52.1, 64.0),
    ("tiny-imagenet", "sre2l++", "resnet18"): (9.3, 46.5, 53.5),
    ("imagenette", "sre2l++", "resnet18"): (29.7, 62.4, 80.3),
    ("imagenet-1k", "sre2l++", "resnet18"): (8.6, 43.1, 57.6),
}


Place = tuple[str, int, str, str]  # data set, images per class, method, student


def _table_1() -> Iterator[tuple[Place, float]]:
    columns = [(student, method) for student in TABLE_1_STUDENTS for method in TABLE_1_METHODS]
    for dataset, text in TABLE_1.items():
        for ipc, line in zip(IPCS, text.strip().splitlines(), strict=True):
            for (student, method), value in zip(columns, line.split(), strict=True):
                if value != "-":
                    yield (dataset, ipc, method, student), float(value)


def _figures() -> Iterator[Figure]:
    for place, mean in _table_1():
        yield _figure(FADRM_1, place, mean)
    for student, mean in TABLE_2_RIGHT.items():
        yield _figure(FADRM_2, ("imagenet-1k", 10, "fadrm+", student), mean)
    for (dataset, method, student), text in RDED_TABLE_2.items():
        values = list(map(float, text.split()))
        for ipc, mean, std in zip(IPCS, values[::2], values[1::2], strict=True):
            yield _figure(RDED_2, (dataset, ipc, method, student), mean, std)
    for (dataset, method, student), means in CV_DD_TABLE.items():
        for ipc, mean in zip(IPCS, means, strict=True):
            yield _figure(CV_DD, (dataset, ipc, method, student), mean)


def _figure(source: str, place: Place, top1_pct: float, std: float | None = None) -> Figure:
    dataset, ipc, method, student = place
    return Figure(source=source, dataset=dataset, ipc=ipc, method=method, student=student, top1_pct=top1_pct, std=std)


FIGURES: dict[Place, Figure] = {(one.dataset, one.ipc, one.method, one.student): one for one in _figures()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """One of the paper's ablations: title of a value -> top-1, on a set of the paper's own."""

    source: str
    setting: str
    method: str = "fadrm"
    values: Mapping[str, float]

    def figure(self, title: str) -> PaperOut | None:
        """What stands beside a value of the axis."""
        if title not in self.values:
            return None
        return PaperOut(top1_pct=self.values[title], source=self.source, setting=self.setting, alike=False)


IMAGENET = "ImageNet-1K, 10 per class, ResNet-18"
ABLATIONS = {
    "alpha": Ablation(
        # The text at hand lacks the values of alpha: they are taken to fall from 0.9 in steps of 0.1, so that 0.5 is best.
        source="FADRM (arXiv 2506.24125), Table 5",
        setting=IMAGENET,
        values={"0.4": 47.4, "0.5": 47.7, "0.6": 47.3, "0.7": 47.6, "0.8": 46.4, "0.9": 45.7, "1.0": 46.2},
    ),
    "injections": Ablation(
        source="FADRM (arXiv 2506.24125), Table 6 left",
        setting="CIFAR-100, ResNet-18",
        values={"1": 59.2, "2": 60.9, "3": 61.5, "4": 60.5, "5": 59.4, "6": 57.9},
    ),
    "resolution": Ablation(
        source="FADRM (arXiv 2506.24125), Table 6 right",
        setting=f"{IMAGENET}, low stages of 160, 180, 200 and 224 px",
        values={"23": 47.2, "26": 47.5, "29": 47.7, "32": 47.7},
    ),
    "precision": Ablation(
        source="FADRM (arXiv 2506.24125), Table 4", setting=IMAGENET, values={"bf16": 47.7, "fp32": 47.8}
    ),
    "patches": Ablation(
        source="FADRM (arXiv 2506.24125), Table 3", setting=IMAGENET, values={"1 x 1": 48.4, "2 x 2": 47.7}
    ),
}


def collection_of(dataset: Mapping[str, Any]) -> str | None:
    """Which of the papers' sets a spec's data set is, going by its name; None where classes were chosen."""
    name = str(dataset.get("path", dataset.get("name", ""))).rstrip("/").rpartition("/")[2]
    name = FOLDERS.get(name, name)
    return name if name in COLLECTIONS and not dataset.get("classes") else None


def whole(student: str) -> str:
    """The network that a narrow one is a form of: `resnet18` for `resnet18_w16`."""
    return student.partition("_w")[0] if student.rpartition("_w")[2].isdecimal() else student


def paper_figure(spec: Mapping[str, Any], subject: str, student: str, labels: str) -> PaperOut | None:
    """What a paper reports for a row of a job's score card; for a narrow network what it reports for the whole one.

    subject: `distilled` is the job's own method; RDED's baseline is RDED. Papers report soft labels.
    """
    dataset = collection_of(spec["dataset"])
    method = spec["method"]["method"] if subject == "distilled" else subject
    if dataset is None or labels != "soft":
        return None
    figure = FIGURES.get((dataset, spec["ipc"], method, whole(student)))
    return None if figure is None else figure.out(alike=figure.student == student)


def difference(mean: float | None, paper: PaperOut | None) -> float | None:
    """Points above the paper; None where either is missing, or the figure is of another setting."""
    return mean - paper.top1_pct if mean is not None and paper is not None and paper.alike else None
