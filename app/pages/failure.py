"""The card of a failed job: what happened, what was needed and what was free, and what to do about it with one click."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.plan import StepKind
from engine.spec import JobSpec

Spec = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """A change of the spec that may help: a new job's form, filled in."""

    name: str
    title: str
    change: Callable[[Spec, str], Spec]  # spec and kind of the step that failed -> another spec


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureCard:
    """What the page of a failed job says first."""

    title: str  # what happened, in two or three words
    advice: str
    facts: tuple[tuple[str, str], ...]
    words: tuple[str, ...]  # the engine's own last lines
    remedies: tuple[tuple[str, str], ...]  # name -> title of changes that a new job may begin with
    helps_again: bool  # whether trying the same again may end otherwise
    links: tuple[tuple[str, str], ...]  # where to look: address, title


def _halved_batches(spec: Spec, kind: str) -> Spec:
    """Half of every batch that the step which failed is made with; labels and students share theirs."""
    if kind == StepKind.TEACH:
        teachers = [one | {"batch_size": max(one["batch_size"] // 2, 2)} for one in spec["teachers"]]
        return spec | {"teachers": teachers}
    if kind == StepKind.RECOVER and "batch" in spec["method"]:
        return spec | {"method": spec["method"] | {"batch": max(spec["method"]["batch"] // 2, 1)}}
    labels = spec["labels"]
    return spec | {"labels": labels | {"batch_size": max(labels["batch_size"] // 2, 2)}}


def _lower_rate(spec: Spec, kind: str) -> Spec:
    """A third of the learning rate that the step which failed was driven by."""
    if kind == StepKind.TEACH:
        return spec | {"teachers": [one | {"lr": one["lr"] / 3} for one in spec["teachers"]]}
    if kind == StepKind.RECOVER and "lr" in spec["method"]:
        return spec | {"method": spec["method"] | {"lr": spec["method"]["lr"] / 3}}
    evaluation = spec["evaluation"]
    return spec | {"evaluation": evaluation | {"lr": evaluation["lr"] / 3}} if "lr" in evaluation else spec


def _full_precision(spec: Spec, _kind: str) -> Spec:
    return spec | {"precision": "fp32"}


SMALLER = Remedy(name="smaller-batches", title="New job with batches half as large", change=_halved_batches)
SLOWER = Remedy(name="lower-rate", title="New job with a third of the learning rate", change=_lower_rate)
FP32 = Remedy(name="fp32", title="New job in fp32", change=_full_precision)
REMEDIES: Mapping[str, Remedy] = {one.name: one for one in (SMALLER, SLOWER, FP32)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is known of failures with one code."""

    title: str
    advice: str
    remedies: tuple[Remedy, ...] = ()
    helps_again: bool = False
    links: tuple[tuple[str, str], ...] = ()


WORKERS = ("/workers", "Look at the workers")
GPU_MEMORY = Kind(
    title="Out of GPU memory",
    advice="Finished steps are kept. Smaller batches need less; so do a smaller network and a lower resolution. "
    "Where another program held the memory, trying again later is enough.",
    remedies=(SMALLER,),
    helps_again=True,
    links=(WORKERS,),
)
HOST_MEMORY = Kind(
    title="Out of memory",
    advice="The system ended the engine because the machine had no memory left. Smaller batches need less, and so do "
    "fewer workers on that machine.",
    remedies=(SMALLER,),
    helps_again=True,
    links=(WORKERS,),
)
DIVERGED = Kind(
    title="The loss is not finite",
    advice="The same numbers would come again: change the job. A lower learning rate is the first thing to try.",
    remedies=(SLOWER, FP32),
)
DISK = Kind(
    title="The disk is full",
    advice="Free space in the store, then try again: finished steps are kept.",
    helps_again=True,
    links=(("/storage", "See what can be freed"),),
)
DATA = Kind(
    title="The images cannot be used",
    advice="Mend the data set and try again: what it holds is looked at anew. Nothing was trained yet on what is broken.",
    helps_again=True,
)
LOST = Kind(
    title="The worker was lost",
    advice="It was tried several times, and each time the worker went silent: often the machine had no memory left, "
    "or it was switched off. Finished steps and the last checkpoint are kept.",
    helps_again=True,
    links=(WORKERS,),
)
POISON = Kind(
    title="The engine crashed, again and again",
    advice="The same step ended without a word each time it was tried, so it is not tried any more. "
    "Its last lines are below.",
    helps_again=True,
    links=(WORKERS,),
)
OTHER = Kind(title="The job failed", advice="")
KINDS: Mapping[str, Kind] = {
    "gpu_out_of_memory": GPU_MEMORY,
    "host_out_of_memory": HOST_MEMORY,
    "nan_loss": DIVERGED,
    "disk_full": DISK,
    "dataset_invalid": DATA,
    "dataset_missing": DATA,
    "worker_lost": LOST,
    "engine_crashed": POISON,
    "engine_silent": POISON,
}
TERMS = {  # details of an error that are told, and how
    "requested_bytes": "Needed",
    "free_bytes": "Free",
    "total_bytes": "In all",
    "stage": "While",
    "step": "At step",
    "exit_code": "Exit code",
    "path": "File",
}


def card(error: Mapping[str, Any], spec: Spec, size: Callable[[int], str]) -> FailureCard:
    """What is said of a job's error. error: engine.errors.ErrorReport and its step. size: bytes for people."""
    kind = KINDS.get(error["code"], OTHER)
    details = error.get("details") or {}
    facts = [("Step", str(error.get("step", "")))]
    for name, term in TERMS.items():
        value = details.get(name)
        if value is not None:
            facts.append((term, size(value) if name.endswith("_bytes") else str(value)))
    changed = [one for one in kind.remedies if one.change(spec, str(error.get("kind", ""))) != spec]
    return FailureCard(
        title=kind.title,
        advice=kind.advice or str(error.get("hint", "")),
        facts=tuple((term, value) for term, value in facts if value),
        words=tuple(map(str, details.get("log", ()))),
        remedies=tuple((one.name, one.title) for one in changed),
        helps_again=kind.helps_again or kind is OTHER,
        links=kind.links,
    )


def remedied(spec: Spec, error: Mapping[str, Any] | None, name: str) -> Spec:
    """The spec of a failed job, changed by a remedy; as it was where there is no such remedy."""
    if name not in REMEDIES or error is None:
        return spec
    changed = REMEDIES[name].change(spec, str(error.get("kind", "")))
    return JobSpec.model_validate(changed).model_dump(mode="json")
