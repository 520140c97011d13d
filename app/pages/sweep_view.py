"""One sweep as its page shows it: a table of what one student reached, and the points of its plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from pydantic import BaseModel, Field

from app.results.suites import SUITES
from app.views import CellOut, SweepOut
from app.views.sweeps import CellScore, chosen, tally
from engine.networks import network_title
from engine.scores import SUBJECT_TITLES


class Asked(BaseModel):
    """What the address asks for; what no job has is the first that there is."""

    student: str = Field("", max_length=80)
    labels: str = Field("", max_length=20)
    subject: str = Field("", max_length=40)


def context(sweep: SweepOut, asked: Asked) -> dict[str, Any]:
    """The context of the template."""
    student = asked.student if asked.student in sweep.students else ""
    labels = _known(asked.labels, sweep.labels)
    subject = _known(asked.subject, sweep.subjects)
    rows = [(cell, chosen(cell, student, labels)) for cell in sweep.cells]
    query = urlencode({"student": student, "labels": labels})
    return {
        "asked": Asked(student=student, labels=labels, subject=subject),
        "rows": rows,
        "titles": {name: SUBJECT_TITLES.get(name, name) for name in sweep.subjects},
        "tally": tally(sweep.jobs),
        "plot": _plot(sweep, rows, subject),
        "summary": _summary(rows, subject),
        "csv": f"{sweep.urls['table']}?{query}&format=csv",
        "json": f"{sweep.urls['table']}?{query}",
        **_papers([score for _, scores in rows for score in scores.values()]),
        "suite": SUITES.get(sweep.suite or ""),
        "student_titles": {name: network_title(name) for name in sweep.students},
    }


def _papers(scores: Sequence[CellScore]) -> dict[str, Any]:
    """The subjects that have a column of the papers' figures, the papers, and the settings that are not the jobs' own."""
    found = [(score.subject, score.paper) for score in scores if score.paper is not None]
    return {
        "reported": {subject for subject, _ in found},
        "sources": list(dict.fromkeys(paper.source for _, paper in found)),
        "settings": list(dict.fromkeys(paper.setting for _, paper in found if not paper.alike)),
    }


def _known(wanted: str, known: Sequence[str]) -> str:
    return wanted if wanted in known else next(iter(known), "")


Rows = Sequence[tuple[CellOut, dict[str, CellScore]]]


def _plot(sweep: SweepOut, rows: Rows, subject: str) -> dict[str, Any]:
    """The first axis as x, a series for each combination of the others: (place on x, mean, spread)."""
    axis, series = sweep.axes[0], dict[tuple[int, ...], dict[str, Any]]()
    for cell, scores in rows:
        title = ", ".join(list(cell.values.values())[1:]) or SUBJECT_TITLES.get(subject, subject)
        line = series.setdefault(tuple(cell.at[1:]), {"title": title, "points": []})
        score = scores.get(subject)
        if score is not None and score.mean is not None:
            line["points"].append([cell.at[0], score.mean, score.std])
    return {"x": axis.name, "titles": axis.titles, "numbers": axis.numbers, "series": list(series.values())}


def _summary(rows: Rows, subject: str) -> str:
    """The plot in a sentence."""
    known = [(score.mean, score.std, cell) for cell, found in rows if (score := found.get(subject)) and score.mean]
    title = SUBJECT_TITLES.get(subject, subject)
    if not known:
        return f"{title}: no accuracy is known yet."
    best, worst = max(known, key=lambda one: one[0]), min(known, key=lambda one: one[0])
    told = f"{title}, last epoch: highest {_said(*best)}"
    tail = f", lowest {_said(*worst)}" if worst[2] is not best[2] else ""
    return f"{told}{tail}; {len(known)} of {len(rows)} jobs have accuracies."


def _said(mean: float, std: float | None, cell: CellOut) -> str:
    spread = f" ± {std:.1f}" if std is not None else ""
    return f"{mean:.1f}{spread} % with {', '.join(f'{axis} {title}' for axis, title in cell.values.items())}"
