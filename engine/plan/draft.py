"""A plan in the making: what every part of it knows, and the steps so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Self

from pydantic import BaseModel

from engine.datasets import Facts
from engine.networks import SMALL_BELOW_PX, forward_flop
from engine.params import PrepareParams, TeachParams
from engine.plan.graph import CODE_VERSIONS, Step, StepKind
from engine.spec import TORCHVISION, TRAINED, UPLOADED, JobSpec, Teacher, sha256_of
from engine.store import sha256_of_file

Parts = dict[str, str]  # role -> key: "images.0", "images.1", ...
KIND_ORDER = {kind: place for place, kind in enumerate(StepKind)}


@dataclass(slots=True, kw_only=True)
class Draft:
    """Collects steps; a step that two parts of a job need is there once."""

    spec: JobSpec
    facts: Facts
    data: str = ""  # key of the prepared data set
    teachers: Parts = field(default_factory=dict)  # "teacher.<i>" -> key
    steps: dict[str, Step] = field(default_factory=dict)

    @classmethod
    def begin(cls, spec: JobSpec, facts: Facts) -> Self:
        """With what every job has: its data and its teachers."""
        draft = cls(spec=spec, facts=facts)
        params = PrepareParams(dataset=spec.dataset, resolution=facts.resolution, digest=facts.digest)
        size = (facts.train_images + facts.test_images) * draft.image_bytes
        draft.data = draft.add(StepKind.PREPARE, f"Read {facts.title}", params, {}, size_bytes=size)
        draft.teachers = {f"teacher.{index}": draft.teach(teacher) for index, teacher in enumerate(spec.teachers)}
        return draft

    def add(
        self,
        kind: StepKind,
        title: str,
        params: BaseModel,
        needs: dict[str, str],
        *,
        flop: float = 0.0,
        size_bytes: int = 0,
    ) -> str:
        """The key of a step, which is there from now on."""
        step = made(kind, title, params, needs, flop=flop, size_bytes=size_bytes)
        return self.steps.setdefault(step.key, step).key

    def teach(self, teacher: Teacher, title: str = "") -> str:
        """The key of a network that is trained on the real images, or imported: a teacher, where `title` says nothing else."""
        spec = self.spec
        digest = _digest_of_weights(teacher)
        small = self.facts.resolution < SMALL_BELOW_PX
        teacher = teacher.model_copy(update={"crop": teacher.crop or ("padded" if small else "resized")})
        params = TeachParams(teacher=teacher, weights_sha256=digest, flip=spec.flip, precision=spec.precision)
        trained = teacher.weights == TRAINED
        flop = 3 * self.forward(teacher.network) * self.facts.train_images * teacher.epochs if trained else 0.0
        verb = "Train" if trained else "Import"
        title = title or f"{verb} teacher {teacher.network}"
        return self.add(StepKind.TEACH, title, params, {"data": self.data}, flop=flop)

    def in_order(self) -> tuple[Step, ...]:
        """Every step after those that it needs: kinds go in the order of `StepKind`."""
        return tuple(sorted(self.steps.values(), key=lambda step: KIND_ORDER[step.kind]))

    def images(self, ipc: int) -> int:
        """How many images so many of each class are."""
        return ipc * len(self.facts.classes)

    @property
    def image_bytes(self) -> int:
        return 3 * self.facts.resolution**2

    def forward(self, network: str) -> float:
        """Operations of one forward pass of one image."""
        return forward_flop(network, self.facts.resolution)


def made(
    kind: StepKind, title: str, params: BaseModel, needs: dict[str, str], *, flop: float = 0.0, size_bytes: int = 0
) -> Step:
    """A step, with the key that says what it is made from."""
    facts = params.model_dump(mode="json")
    key = sha256_of([kind, CODE_VERSIONS[kind], facts, needs])
    return Step(key=key, kind=kind, title=title, params=facts, needs=needs, flop=flop, size_bytes=size_bytes)


def _digest_of_weights(teacher: Teacher) -> str | None:
    """SHA-256 of the file that weights come from; None where there is none."""
    if teacher.weights == UPLOADED:
        return teacher.upload  # an upload's id is that of its bytes
    return None if teacher.weights in (TRAINED, TORCHVISION) else digest_of(Path(teacher.weights))


def digest_of(path: Path) -> str:
    """SHA-256 of a file, read again only when it has changed since."""
    status = path.stat()
    return _digest_of(path, (status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=64)
def _digest_of(path: Path, _stamp: tuple[int, int]) -> str:
    return sha256_of_file(path)
