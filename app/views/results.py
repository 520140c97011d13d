"""What came out of a job: the score card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev

from pydantic import Field
from sqlalchemy.orm import Session

from app.jobs import steps_of
from app.models import Job, Step, StepState
from app.views.out import Out
from engine.networks import network_title
from engine.plan import Row, StepKind
from engine.scores import SUBJECT_TITLES, Score, robustness, verdicts


class RunOut(Out):
    """One student."""

    key: str
    state: str
    last: float | None = Field(description="Top-1 on the real test set after the last epoch, %.")
    chosen: float | None = Field(description="Of the epoch that is best on held-back real training images, %.")
    best: float | None = Field(description="The best of all its tests, %: chosen on the test set.")
    seconds: float | None


class RowOut(Out):
    """One line of the score card. mean and std are of the last epoch."""

    subject: str
    title: str
    student: str
    labels: str
    ipc: int = Field(description="Images per class that the student saw.")
    n: int = Field(description="Runs that are done.")
    planned: int
    mean: float | None
    std: float | None = Field(description="Sample standard deviation; null below two runs.")
    last: list[float]
    chosen: list[float]
    chosen_mean: float | None
    best: list[float]
    best_mean: float | None
    runs: list[RunOut]


class TeacherOut(Out):
    """One teacher."""

    key: str
    network: str
    state: str
    cached: bool
    top1_pct: float | None = Field(description="On the real test set.")
    seconds: float | None


class FullDataOut(Out):
    """A student's network trained on all real images."""

    student: str
    title: str
    state: str
    top1_pct: float | None


class RobustnessOut(Out):
    """DD-Ranking's scores of the job's own images, by one kind of student."""

    student: str
    title: str
    hlr: float | None = Field(description="Hard label recovery: low is good.")
    ior: float | None = Field(description="Improvement over random real images.")
    lrs: float | None = Field(description="Label robust score, 0 to 1: high is good.")
    missing: str = Field(description="What was not measured; empty when all was.")


class ContinualOut(Out):
    """Class-incremental learning by one set of images."""

    subject: str
    title: str
    student: str
    steps: int
    runs: int
    curve: list[tuple[int, float]] = Field(description="Classes so far, and mean top-1 on them over the runs, %.")


class ResultsOut(Out):
    """The score card."""

    complete: bool
    rows: list[RowOut]
    teachers: list[TeacherOut]
    verdicts: list[str] = Field(description="What the figures show, and what they do not, one sentence a baseline.")
    full_data: list[FullDataOut] = Field(description="The same students trained on all real images: the upper bound.")
    robustness: list[RobustnessOut] = Field(description="DD-Ranking's scores, as fractions of 1, one entry a student.")
    continual: list[ContinualOut] = Field(description="Class-incremental learning, one entry a curve.")
    quick: bool = Field(description="A quick look: comparable with nothing.")


def results(session: Session, job: Job) -> ResultsOut:
    """The score card as far as it is known."""
    steps = steps_of(session, job.id)
    by_key = {step.key: step for step in steps}
    rows = [row_out(Row.model_validate(row), by_key) for row in job.rows]
    own = [_score(row) for row in rows if row.last and row.ipc == job.spec["ipc"]]
    package = by_key[job.package_key]
    full = list(_full_data(package, by_key))
    return ResultsOut(
        complete=all(row.n == row.planned for row in rows),
        rows=rows,
        teachers=[_teacher(step) for step in steps if step.kind == StepKind.TEACH],
        verdicts=verdicts(own),
        full_data=full,
        robustness=[
            RobustnessOut(
                student=one.student,
                title=network_title(one.student),
                hlr=one.hlr,
                ior=one.ior,
                lrs=one.lrs,
                missing=one.missing,
            )
            for one in robustness(own, {one.student: one.top1_pct for one in full if one.top1_pct is not None})
        ],
        continual=_continual(package, by_key),
        quick=job.spec["evaluation"].get("quick", False),
    )


def _full_data(package: Step, by_key: Mapping[str, Step]) -> Iterator[FullDataOut]:
    """The networks that the job trains on all real images for comparison."""
    for index, student in enumerate(package.params.get("full", ())):
        step = by_key[package.needs[f"full.{index}"]]
        top1 = (step.result or {}).get("top1_pct")
        yield FullDataOut(student=student, title=network_title(student), state=step.state, top1_pct=top1)


def _continual(package: Step, by_key: Mapping[str, Step]) -> list[ContinualOut]:
    """The curves of class-incremental learning as far as they are known."""
    runs: dict[tuple[str, str, int], list[list[tuple[int, float]]]] = {}
    for index, (subject, student, groups, _) in enumerate(package.params.get("continual", ())):
        step = by_key[package.needs[f"continual.{index}"]]
        if step.state == StepState.SUCCEEDED and step.result:
            runs.setdefault((subject, student, groups), []).append(step.result["curve"])
    return [
        ContinualOut(
            subject=subject,
            title=SUBJECT_TITLES.get(subject, subject),
            student=student,
            steps=groups,
            runs=len(curves),
            curve=[(points[0][0], fmean(top1 for _, top1 in points)) for points in zip(*curves, strict=True)],
        )
        for (subject, student, groups), curves in runs.items()
    ]


def row_out(row: Row, steps: Mapping[str, Step]) -> RowOut:
    """A line of a job's score card. steps: by key, at least those of its runs."""
    runs = [_run(steps[key]) for key in row.runs]
    last = [run.last for run in runs if run.last is not None]
    chosen = [run.chosen for run in runs if run.chosen is not None]
    best = [run.best for run in runs if run.best is not None]
    return RowOut(
        subject=row.subject,
        title=SUBJECT_TITLES.get(row.subject, row.subject),
        student=row.student,
        labels=row.labels,
        ipc=row.ipc,
        n=len(last),
        planned=len(runs),
        mean=_mean(last),
        std=stdev(last) if len(last) > 1 else None,
        last=last,
        chosen=chosen,
        chosen_mean=_mean(chosen),
        best=best,
        best_mean=_mean(best),
        runs=runs,
    )


def _run(step: Step) -> RunOut:
    result = (step.result or {}) if step.state == StepState.SUCCEEDED else {}
    return RunOut(
        key=step.key,
        state=step.state,
        last=result.get("top1_last_pct"),
        chosen=result.get("top1_chosen_pct"),
        best=result.get("top1_best_pct"),
        seconds=step.seconds,
    )


def _teacher(step: Step) -> TeacherOut:
    return TeacherOut(
        key=step.key,
        network=step.params["teacher"]["network"],
        state=step.state,
        cached=step.cached,
        top1_pct=(step.result or {}).get("top1_pct"),
        seconds=step.seconds,
    )


def _score(row: RowOut) -> Score:
    return Score(
        subject=row.subject,
        student=row.student,
        labels=row.labels,
        last=tuple(row.last),
        best=tuple(row.best),
        chosen=tuple(row.chosen),
    )


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
