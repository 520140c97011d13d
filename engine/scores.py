"""The score card: accuracies of students per row, with their spread, and what they honestly say. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from engine.networks import network_title

SUBJECT_TITLES = {
    "distilled": "Distilled images",
    "rded": "RDED (easiest crops)",
    "patches": "Source patches",
    "random": "Random real images",
    "herding": "Herding",
}


LABELS = ("soft", "hard")  # in this order IOR takes them


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One row: what its runs reached on the real test set, %."""

    subject: str
    student: str
    labels: str
    last: tuple[float, ...]  # top-1 after the last epoch, one a run
    best: tuple[float, ...]  # the best of all tests of a run: chosen on the test set, as the papers report it
    chosen: tuple[float, ...] = ()  # at the epoch that is best on held-back real training images; empty without any

    @property
    def mean(self) -> float:
        return fmean(self.last)

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the runs; None for a single one."""
        return stdev(self.last) if len(self.last) > 1 else None

    @property
    def title(self) -> str:
        return SUBJECT_TITLES.get(self.subject, self.subject)


def collect(results: Iterable[tuple[tuple[str, str, str], dict[str, float]]]) -> list[Score]:
    """Scores out of ((subject, student, labels), result of an evaluate step) pairs, in the order in which rows appear."""
    rows: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for row, result in results:
        rows.setdefault(row, []).append(result)
    return [
        Score(
            subject=subject,
            student=student,
            labels=labels,
            last=tuple(result["top1_last_pct"] for result in found),
            best=tuple(result["top1_best_pct"] for result in found),
            chosen=tuple(top1 for result in found if (top1 := result.get("top1_chosen_pct")) is not None),
        )
        for (subject, student, labels), found in rows.items()
    ]


def spread(values: Sequence[float]) -> str:
    """`61.2 +- 0.4` with a real sign; without a spread for a single value."""
    mean = f"{fmean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} \u00b1 {stdev(values):.1f}"


def table(scores: Sequence[Score]) -> str:
    """The card as a Markdown table, which also reads well as plain text."""
    head = ("Images", "Student", "Labels", "Runs", "Last epoch, %", "Chosen epoch, %", "Best on test, %")
    rows = [
        (
            score.title,
            network_title(score.student),
            score.labels,
            str(len(score.last)),
            spread(score.last),
            spread(score.chosen) if score.chosen else "-",
            spread(score.best),
        )
        for score in scores
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    rule = " | ".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in (lines[0], rule, *lines[1:]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Robustness:
    """DD-Ranking's scores of the distilled images, by one kind of student, as fractions of 1 and not as points.

    None where a part was not measured. Source: DD-Ranking.
    """

    student: str
    hlr: float | None  # hard label recovery: top-1 on all real images less that on the distilled ones, hard labels both
    ior: float | None  # improvement over random images with the same kind of labels
    lrs: float | None  # label robust score: 0 to 1, high is good

    @property
    def missing(self) -> str:
        """What would have to be measured, too; empty when all of it was."""
        needs = []
        if self.hlr is None:
            needs.append("hard labels and evaluation.full_data for HLR")
        if self.ior is None:
            needs.append("the baseline random for IOR")
        return " and ".join(needs)


def robustness(scores: Sequence[Score], full: Mapping[str, float]) -> list[Robustness]:
    """One entry a student. full: network -> top-1 of the same network trained on all real images, %."""
    means = {(score.subject, score.student, score.labels): score.mean / 100 for score in scores}
    found = []
    for student in dict.fromkeys(score.student for score in scores):
        own, bound = means.get(("distilled", student, "hard")), full.get(student)
        hlr = None if own is None or bound is None else bound / 100 - own
        pairs = [(means.get(("distilled", student, kind)), means.get(("random", student, kind))) for kind in LABELS]
        ior = next((made - real for made, real in pairs if made is not None and real is not None), None)
        lrs = None if hlr is None or ior is None else label_robust_score(hlr, ior)
        found.append(Robustness(student=student, hlr=hlr, ior=ior, lrs=lrs))
    return found


def label_robust_score(hlr: float, ior: float) -> float:
    """LRS of both as fractions: (e^a - e^-1) / (e - e^-1) with a = (IOR - HLR) / 2."""
    alpha = (ior - hlr) / 2
    return (math.exp(alpha) - math.exp(-1)) / (math.e - math.exp(-1))


def verdicts(scores: Sequence[Score]) -> list[str]:
    """One sentence for each baseline beside the distilled images, by the same student with the same labels."""
    distilled = {(score.student, score.labels): score for score in scores if score.subject == "distilled"}
    return [
        _verdict(distilled[score.student, score.labels], score)
        for score in scores
        if score.subject != "distilled" and (score.student, score.labels) in distilled
    ]


def signed(value: float, digits: int = 1) -> str:
    """With its sign: +1.5, or by a real minus."""
    return f"{value:+.{digits}f}".replace("-", "\u2212")


def _verdict(own: Score, other: Score) -> str:
    """Says `better` only when the difference exceeds the two spreads together."""
    who = f"{network_title(own.student)}, {own.labels} labels"
    difference = own.mean - other.mean
    points = signed(difference)
    beside = f"{other.title.lower() if other.subject != 'rded' else other.title}"
    if own.std is None or other.std is None:
        return f"{who}: {points} points against {beside}; one run each, so nothing is known of the spread."
    noise = own.std + other.std
    if abs(difference) <= noise:
        return (
            f"{who}: {points} points against {beside}, within the spread of the runs (\u00b1{noise:.1f}): "
            f"no difference is shown."
        )
    word = "better" if difference > 0 else "worse"
    return f"{who}: {abs(difference):.1f} points {word} than {beside}, more than the spread of the runs (\u00b1{noise:.1f})."
