"""What is measured, as data: each workload in its full size, and in one that two CPU cores finish in seconds. Torch-free."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from engine.networks import SMALL_BELOW_PX

Kind = Literal["recover", "labels", "student", "teach", "read", "service", "workers", "job"]
LARGE_BLOCK = 100  # images of ImageNet's size that the authors recover at once
SMALL_BLOCKS = 10  # of small images, that an engine may take at once
FOUR_SMALL = ("resnet18", "densenet121", "shufflenet_v2_x0_5", "mobilenet_v2")
FOUR_LARGE = ("resnet18", "densenet121", "shufflenet_v2_x1_0", "mobilenet_v2")


class Workload(BaseModel, frozen=True, extra="forbid"):
    """One thing to measure. Numbers that a kind has no use for are left at their defaults."""

    name: str
    kind: Kind
    networks: tuple[str, ...] = ("resnet18",)  # the teachers, or the one that is trained
    resolution: int = 32  # px
    classes: int = 10  # of recover: also the images of a block, as batch is larger
    ipc: int = 1
    batch: int = 100
    steps: int = 160  # of recover: the whole budget; a measurement ends before
    images: int = 0  # of teach and read
    epochs: int = 12  # planned; a measurement ends before
    threads: int | None = None  # that a side computes with; None for as many as the run is given
    enough_s: float = 8.0  # a measurement ends after so long, or when all is done

    @property
    def unit(self) -> str:
        """What seconds and operations are counted per."""
        match self.kind:
            case "recover" | "workers" | "service":
                return "image-iteration"
            case "job":
                return "job"
            case _:
                return "image"

    @property
    def seen(self) -> int:
        """Images of an epoch, or of a data set."""
        return self.images or self.classes * self.ipc

    @property
    def checked(self) -> Workload:
        """The same, so small that both sides can do all of it in fp32 and be compared."""
        small = {"classes": 4, "steps": 4, "epochs": 2, "ipc": min(self.ipc, 2)}
        if self.kind in ("labels", "student"):
            small["ipc"] = 6
        return self.model_copy(update=small | {"images": min(self.images, 60)})


def _recover(name: str, resolution: int, networks: tuple[str, ...] = ("resnet18",), **given: Any) -> Workload:
    batch = 10 if resolution >= SMALL_BELOW_PX else 100
    return Workload.model_validate(
        {"name": name, "kind": "recover", "networks": networks, "resolution": resolution, "classes": batch} | given
    )


FULL = (
    _recover("recover32", 32),
    _recover("recover64", 64),
    _recover("recover200", 200),
    _recover("recover224", 224),
    _recover("recover32-four", 32, FOUR_SMALL),
    _recover("recover64-four", 64, FOUR_SMALL, classes=20),
    _recover("recover224-four", 224, FOUR_LARGE),
    *(_recover(f"ipc{ipc}", 32, ("resnet18_w16",), classes=10, ipc=ipc, enough_s=4.0) for ipc in (1, 4, 10)),
    *(_recover(f"classes{many}", 32, ("resnet18_w16",), classes=many, enough_s=4.0) for many in (20, 100)),
    Workload(name="labels32", kind="labels", classes=100, ipc=10, batch=16),
    Workload(name="student32", kind="student", classes=100, ipc=10, batch=16, epochs=2),
    Workload(name="labels64", kind="labels", classes=200, ipc=10, batch=16, resolution=64, epochs=2),
    Workload(name="student64", kind="student", classes=200, ipc=10, batch=16, resolution=64, epochs=1),
    Workload(name="teach32", kind="teach", images=2048, batch=128, epochs=2),
    Workload(name="read", kind="read", images=10_000, resolution=64, enough_s=60.0),
    Workload(name="service", kind="service", networks=("resnet18_w16",), steps=1000, threads=1),
    Workload(name="workers", kind="workers", networks=("resnet18_w16",), steps=400, ipc=2),
    Workload(name="job", kind="job"),
)
QUICK: dict[str, dict[str, Any]] = {
    "recover32": {"classes": 20, "enough_s": 2.0},
    "recover64": {"classes": 10, "enough_s": 2.0},
    "recover224": {"classes": 4, "enough_s": 2.0},
    "recover32-four": {"classes": 10, "enough_s": 2.0},
    "recover224-four": {"classes": 2, "enough_s": 3.0},
    "ipc1": {"enough_s": 1.0},
    "ipc4": {"enough_s": 1.5},
    "classes100": {"enough_s": 2.0},
    "labels32": {"classes": 16, "ipc": 6, "enough_s": 2.0},
    "student32": {"classes": 16, "ipc": 6, "epochs": 12, "enough_s": 3.0},
    "teach32": {"images": 256, "batch": 64, "networks": ("resnet18_w16",), "enough_s": 2.0},
    "read": {"images": 600, "enough_s": 5.0},
    "service": {"steps": 300},
    "workers": {"steps": 100},
    "job": {"epochs": 4},
}


def chosen(names: list[str], *, quick: bool) -> list[Workload]:
    """The workloads of these names, or all; quick: the small ones, in their small sizes. Raises KeyError."""
    known = {workload.name: workload for workload in FULL}
    wanted = names or [name for name in known if name in QUICK or not quick]
    return [known[name].model_copy(update=QUICK.get(name, {}) if quick else {}) for name in wanted]


def on_gpu(workload: Workload) -> Workload:
    """The same for a GPU: the paper's whole budget, read as seldom as a job reads it; of large images its hundred, of
    small ones ten a class, as one block alone does not fill it."""
    if workload.kind != "recover":
        return workload
    if workload.resolution >= SMALL_BELOW_PX:
        return workload.model_copy(update={"steps": 2000, "classes": LARGE_BLOCK})
    return workload.model_copy(update={"steps": 2000, "ipc": max(workload.ipc, SMALL_BLOCKS)})
