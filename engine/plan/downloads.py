"""The part of a plan that packs: a download per ipc, and its further forms."""

from __future__ import annotations

from collections.abc import Sequence

from engine.networks import NETWORKS
from engine.params import ExportParams, PackageParams
from engine.plan.draft import Draft, Parts, made
from engine.plan.graph import ContinualRow, Row, Step, StepKind
from engine.spec import Export

TOLD = ("data", "labels")  # what every form tells beside the images


def package(
    draft: Draft,
    images: Parts,
    labels: str,
    ipc: int,
    rows: Sequence[Row],
    continual: Sequence[ContinualRow],
    full: dict[str, str],
) -> str:
    """The key of the download at one ipc."""
    runs = [(row, index, key) for row in rows for index, key in enumerate(row.runs)]
    learnt = [(row, index, key) for row in continual for index, key in enumerate(row.runs)]
    first = draft.steps[images["images.0"]]
    needs = {"data": draft.data, "labels": labels} | draft.teachers | images
    if first.kind == StepKind.SELECT:
        needs["patches"] = first.key
    elif "patches" in first.needs:
        needs["patches"] = first.needs["patches"]
    needs |= {f"row.{index}": key for index, (_, _, key) in enumerate(runs)}
    needs |= {f"continual.{index}": key for index, (_, _, key) in enumerate(learnt)}
    needs |= {f"full.{index}": key for index, key in enumerate(full.values())}
    params = PackageParams(
        spec=draft.spec,
        ipc=ipc,
        rows=tuple((row.subject, row.student, row.labels, run) for row, run, _ in runs),
        continual=tuple((row.subject, row.student, row.steps, run) for row, run, _ in learnt),
        full=tuple(full),
    )
    size = draft.images(ipc) * draft.image_bytes + draft.steps[labels].size_bytes
    if draft.spec.labels.recipe_only:
        size += sum(int(4e6 * NETWORKS[teacher.network].parameters_m) for teacher in draft.spec.teachers)
    title = f"Pack the download of {ipc} images per class" if draft.spec.nested else "Pack the download"
    return draft.add(StepKind.PACKAGE, title, params, needs, size_bytes=size)


def export(draft: Draft, form: Export, package: str) -> str:
    """The key of a download in another form, beside the one that is packed by the step of that key."""
    classes, side = len(draft.facts.classes), draft.facts.resolution
    step = another_form(draft.steps[package], form, classes=classes, resolution=side)
    return draft.steps.setdefault(step.key, step).key


def another_form(package: Step, form: Export, *, classes: int, resolution: int) -> Step:
    """The step that writes in another form what a package step packs. classes and resolution, px, of its data set."""
    packed = PackageParams.model_validate(package.params)
    spec, images = packed.spec, packed.ipc * classes
    params = ExportParams(form=form, ipc=packed.ipc, labels=spec.labels, seed=spec.seed)
    size = images * 3 * resolution**2 * (4 if form == "normalised" else 1)
    if form == "fkd":  # every epoch in full, however few labels are kept
        size += images * spec.labels.epochs * (16 + 2 * classes)
    needs = {role: key for role, key in package.needs.items() if role in TOLD or role.startswith("images.")}
    return made(StepKind.EXPORT, f"Export {packed.ipc} images per class as {form}", params, needs, size_bytes=size)
