"""Train students on these images and test them on real ones. Needs torch alone; from 128 px on torchvision too.

python train.py                      the runs of the score card's first student again
python train.py --student NAME       another network; where the card names none, the first teacher's is trained
python train.py --labels hard        without the teachers' labels
python train.py --test FOLDER        where the download holds no test set: FOLDER/<class>/*; needs Pillow
"""

# ruff: noqa: T201 - it speaks to a person

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine import arrays, png
from engine.datasets import Statistics
from engine.download.teachers import teachers
from engine.label_store import LabelMaker, LabelStore
from engine.labels import LabelPlan, draw_plan
from engine.models import build
from engine.networks import SMALL_BELOW_PX
from engine.precision import precision_for
from engine.randomness import seed_of
from engine.students import Criterion, Student, StudentRecipe, hard_criterion, soft_criterion, top1_pct

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Set:
    """N distilled images (ipc after ipc, classes ascending) and M test images, all uint8 of S px."""

    facts: dict[str, Any]  # manifest.json
    images: Tensor  # (N, 3, S, S)
    labels: Tensor  # (N,)
    test_images: Tensor  # (M, 3, S, S)
    test_labels: Tensor  # (M,)
    teachers: list[nn.Module]  # where the download holds no labels, but what makes them

    @property
    def statistics(self) -> Statistics:
        normalisation = self.facts["normalisation"]
        return tuple(normalisation["mean"]), tuple(normalisation["std"])

    def batches(
        self, soft: LabelStore | LabelMaker | None, epoch: int, device: torch.device
    ) -> tuple[LabelPlan, Criterion]:
        """What a student sees in an epoch, and what it learns from it. soft: where its labels come from, unless hard."""
        if soft is not None:
            plan, logits = soft.epoch(epoch)
            temperature = self.facts["training"]["temperature"]
            return plan, soft_criterion(logits, temperature=temperature, device=device)
        plan = self._drawn(epoch)
        return plan, hard_criterion(self.labels, plan, side=self.facts["resolution"], device=device)

    def soft(self, device: torch.device) -> LabelStore | LabelMaker:
        """The labels that this download holds, or the teachers that make them again."""
        facts, labels = self.facts, self.facts["labels"]
        size, seed = facts["training"]["batch_size"], facts["seed"]
        if not self.teachers:
            return LabelStore.open(HERE / "labels", classes=len(facts["classes"]), batch_size=size, seed=seed)
        return LabelMaker(
            teachers=self.teachers,
            images=self.images,
            draw=self._drawn,
            batch_size=size,
            pool=min(labels["pool"] or labels["epochs"], labels["epochs"]),
            batch_norm=labels["statistics"],
            statistics=self.statistics,
            precision=precision_for(facts["training"]["precision"], device),
            device=device,
            seed=seed,
        )

    def _drawn(self, epoch: int) -> LabelPlan:
        course = self.facts["training"]
        return draw_plan(
            len(self.images),
            batch_size=course["batch_size"],
            side=self.facts["resolution"],
            seed=self.facts["seed"],
            epoch=epoch,
            flip=course["flip"],
            cutmix=course["cutmix"],
        )


def main() -> None:
    """Train the students that were asked for, one line each."""
    _configure()
    facts = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
    options = _options(facts)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    data = _load(facts, options.test, device)
    print(
        f"{facts['name']}: {len(data.images)} images, {len(data.test_images)} to test; {options.student}, on {device}"
    )
    if not facts["spec"]["evaluation"]["students"]:
        print("The score card names no student: --student NAME chooses another network.")
    reported = {
        run["run"]: run
        for row in facts["scores"]
        if (row["subject"], row["student"], row["labels"]) == ("distilled", options.student, options.labels)
        for run in row["runs"]
    }
    for run in range(options.runs):
        curve = list(_train(data, options.student, options.labels, run, device))
        beside = reported.get(run)
        card = f"   (card: {beside['top1_last_pct']:.2f}, {beside['top1_best_pct']:.2f})" if beside else ""
        print(f"run {run + 1}: last {curve[-1]:.2f} %, best {max(curve):.2f} %{card}", flush=True)


def _configure() -> None:
    """The same algorithms on every run, and fp32 that means fp32: as the server sets its engine up (its `configure`).

    What cuBLAS computes with is read as CUDA starts, so this comes before everything.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def _train(data: Set, network: str, labels: str, run: int, device: torch.device) -> Iterator[float]:
    """Train one student from scratch; the accuracy of each test, %."""
    facts, course = data.facts, data.facts["training"]
    rates = course["rates"].get(network, course)
    recipe = StudentRecipe(
        epochs=course["epochs"],
        lr=rates["lr"],
        eta=rates["eta"],
        weight_decay=course["weight_decay"],
        precision=precision_for(course["precision"], device),
    )
    seed = seed_of(facts["seed"], "student", run)
    model = build(network, num_classes=len(facts["classes"]), resolution=facts["resolution"], seed=seed)
    student, images = Student(model, recipe, device=device, seed=seed), data.images.to(device)
    soft = data.soft(device) if labels == "soft" else None
    for epoch in range(recipe.epochs):
        plan, criterion = data.batches(soft, epoch, device)
        student.train_epoch(images, plan, criterion, statistics=data.statistics)
        if (epoch + 1) % course["every"] == 0 or epoch + 1 == recipe.epochs:
            yield top1_pct(
                student.model,
                data.test_images,
                data.test_labels,
                statistics=data.statistics,
                precision=recipe.precision,
                device=device,
            )


def _options(facts: dict[str, Any]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train students on these images, and test them on real ones.")
    course = facts["training"]
    parser.add_argument("--runs", type=int, default=course["runs"], help="students, each with a seed of its own")
    parser.add_argument("--student", default=course["student"], help="network: see engine/networks.py")
    parser.add_argument("--labels", choices=("soft", "hard"), default=course["labels"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--test", type=Path, help="folder of real test images, one folder a class")
    return parser.parse_args()


def _load(facts: dict[str, Any], test: Path | None, device: torch.device) -> Set:
    """Everything into memory."""
    if test is not None:
        test_images, test_labels = _test_folder(facts, test)
    elif (HERE / "test").is_dir():
        test_images, test_labels = (arrays.read(HERE / "test" / f"{name}.npy") for name in ("images", "labels"))
    else:
        raise SystemExit("This download holds no test images (they are too large): name a folder with --test FOLDER.")
    return Set(
        facts=facts,
        images=torch.stack([png.read(HERE / image["file"]) for image in facts["images"]]),
        labels=torch.tensor([image["class"] for image in facts["images"]]),
        test_images=test_images,
        test_labels=test_labels,
        teachers=teachers(facts, HERE / "teachers", device) if facts["labels"]["recipe_only"] else [],
    )


def _test_folder(facts: dict[str, Any], folder: Path) -> tuple[Tensor, Tensor]:
    from engine.decoding import opened, square  # here: it needs Pillow

    images, labels, side = [], [], facts["resolution"]
    for entry in facts["classes"]:
        found = (path for path in (folder / entry["name"]).iterdir() if path.is_file())
        for file in sorted(path for path in found if not path.name.startswith(".")):
            images.append(square(opened(file), side, margin=side >= SMALL_BELOW_PX))
            labels.append(entry["index"])
    return torch.stack(images), torch.tensor(labels)


if __name__ == "__main__":
    main()
