"""From the rows to `docs/results.md`: tables between marks, and a plot a suite. The prose around the marks stays."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from app.results.rows import MAIN, ResultRow, ScoreRow
from app.results.suites import RUNS, SUITES, Run, Suite
from engine.networks import network_title
from engine.scores import SUBJECT_TITLES

MARK = re.compile(r"(<!-- results: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
PLOT = re.compile(r"(<!-- plot: (?P<suite>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
Rows = Mapping[str, Sequence[ResultRow]]
GIB = 2**30


def draw(page: Path, rows: Rows) -> list[Path]:
    """Write the tables into a page, and the plots into the folder of its data; what was written."""
    text = page.read_text()
    marked = {found["name"] for found in MARK.finditer(text)}
    missing, unknown = sorted(rows.keys() - marked), sorted(marked - RUNS.keys())
    if missing or unknown:
        raise ValueError(f"{page.name} has no mark for {missing}" if missing else f"no suite has {unknown}")
    text = MARK.sub(lambda found: found[1] + table(RUNS[found["name"]][1], rows) + found[3], text)
    plots = list(_plots(page.parent / "results", rows))
    shown = {path.stem: f"![The rows as bars](results/{path.name})\n" for path in plots}
    page.write_text(PLOT.sub(lambda found: found[1] + shown.get(found["suite"], "") + found[3], text))
    return [page, *plots]


def _plots(folder: Path, rows: Rows) -> Iterator[Path]:
    """A plot of each suite that has more than one bar to show."""
    for suite in SUITES.values():
        if sum(len(rows.get(run.name, [])) for run in suite.runs) > 1:
            path = folder / f"{suite.name}.svg"
            path.write_text(plot(suite, rows))
            yield path


def table(run: Run, rows: Rows) -> str:
    """A run as Markdown: a line a row and student."""
    found = rows.get(run.name, [])
    suite, _ = RUNS[run.name]
    if not found:
        return f"Not measured yet: `make results SUITE={suite.name}`.\n"
    lines = list(_lines(found))
    columns = [name for name in lines[0] if any(line[name] for line in lines)]
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    body = [f"| {' | '.join(line[name] or '–' for name in columns)} |" for line in lines]
    return "\n".join([_origin(found), "", *head, *body, "", *_sources(found)]) + "\n"


def _lines(rows: Sequence[ResultRow]) -> Iterator[dict[str, str]]:
    best, several = best_of(rows), len({score.student for row in rows for score in row.scores}) > 1
    others = list(dict.fromkeys(score.subject for row in rows for score in row.scores if score.subject != MAIN))
    for row in rows:
        for score in (one for one in row.scores if one.subject == MAIN):
            mean = _spread(score)
            beside = {one.subject: one for one in row.scores if (one.student, one.labels) == _of(score)}
            cost = row.recover
            yield {
                **row.values,
                "student": network_title(score.student) if several else "",
                "last epoch, %": f"**{mean}**" if id(score) in best else mean,
                "best epoch, %": f"{score.best_mean:.1f}",
                **{SUBJECT_TITLES.get(name, name): _spread(beside[name]) if name in beside else "" for name in others},
                "paper, %": f"*{score.paper.top1_pct:g}*" if score.paper else "",
                "difference": f"{score.difference:+.1f}" if score.difference is not None else "",
                "teacher, %": ", ".join(f"{one.top1_pct:.1f}" for one in row.teachers if one.top1_pct is not None),
                "recover, s an image": f"{cost.seconds_per_image:.2g}" if cost else "",
                "memory, GiB": f"{cost.peak_bytes / GIB:.1f}" if cost and cost.peak_bytes else "",
                **{
                    f"{one.steps} groups, {SUBJECT_TITLES.get(one.subject, one.subject)}, %": f"{one.curve[-1][1]:.1f}"
                    for one in row.continual
                },
            }


def _of(score: ScoreRow) -> tuple[str, str]:
    return score.student, score.labels


def _spread(score: ScoreRow) -> str:
    return f"{score.mean:.1f}" if score.std is None else f"{score.mean:.1f} ± {score.std:.1f}"


def best_of(rows: Sequence[ResultRow]) -> set[int]:
    """`id` of the best score of each student among rows of equal data set and images per class."""
    groups: dict[tuple[str, int, str, str], list[ScoreRow]] = {}
    for row in rows:
        for score in row.scores:
            if score.subject == MAIN:
                place = (str(row.spec["dataset"]), row.spec["ipc"], *_of(score))
                groups.setdefault(place, []).append(score)
    return {id(max(scores, key=lambda score: score.mean)) for scores in groups.values() if len(scores) > 1}


def _origin(rows: Sequence[ResultRow]) -> str:
    """Where, when and by which code."""
    told = dict.fromkeys(f"{one.machine}, commit {one.commit}" for one in (row.provenance for row in rows))
    dates = sorted({row.provenance.date for row in rows})
    days = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    runs = sorted({score.runs for row in rows for score in row.scores})
    students = f"{' or '.join(map(str, runs))} students a row" if runs else "no students"
    run = rows[0].run
    return f"{len(rows)} of {RUNS[run][1].jobs} rows, {students}; {'; '.join(told)}; {days}. Data: `results/{run}/`."


def _sources(rows: Sequence[ResultRow]) -> list[str]:
    """What stands in the column of the paper."""
    found = [score.paper for row in rows for score in row.scores if score.paper is not None and score.subject == MAIN]
    told = dict.fromkeys(
        paper.source + ("" if paper.alike else f", {re.sub(r', [0-9]+ per class', '', paper.setting)}")
        for paper in found
    )
    alike = all(paper.alike for paper in found)
    note = "" if alike else " A figure of another setting stands there for its order; no difference is drawn from it."
    return [f"*Paper:* {'; '.join(told)}.{note}", ""] if told else []


WIDTH, LABEL, LINE, TOP = 760, 250, 20, 30  # px of the plot, of its names, of a row, of a heading
STYLE = """
text{font:12px Liberation Sans,Arial,sans-serif;fill:#333}.quiet{fill:#666}.head{font-weight:bold}
.bar{fill:#4c78a8}.best{fill:#1f4e8c}.whisker{stroke:#111;stroke-width:1.5}.ghost{stroke:#b5520a;stroke-width:2.5}.grid{stroke:#ddd}
@media (prefers-color-scheme:dark){text{fill:#ddd}.quiet{fill:#aaa}.bar{fill:#6f9fd8}.best{fill:#a8cbf5}
.whisker{stroke:#eee}.ghost{stroke:#ff9d4d}.grid{stroke:#444}}
"""


def plot(suite: Suite, rows: Rows) -> str:
    """A suite as SVG: a bar a row with the spread of its runs, and a stroke where the paper is."""
    parts: list[str] = []
    y = 0
    for run in suite.runs:
        if run.name in rows:
            drawn, y = _panel(run, rows[run.name], y)
            parts += drawn
    title = f"{suite.title}: top-1 on the real test set, last epoch, %"
    size = f'viewBox="0 0 {WIDTH} {y + 24}" width="{WIDTH}" height="{y + 24}"'
    legend = f'<text class="quiet" x="{LABEL}" y="{y + 12}">black: one standard deviation; orange: the paper</text>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">'
    return "\n".join([head, f"<title>{escape(title)}</title><style>{STYLE}</style>", *parts, legend, "</svg>"]) + "\n"


def _panel(run: Run, rows: Sequence[ResultRow], y: int) -> tuple[list[str], int]:
    several = len({score.student for row in rows for score in row.scores}) > 1
    bars = [(row, score) for row in rows for score in row.scores if score.subject == MAIN]
    best, bottom = best_of(rows), y + TOP + LINE * len(bars)
    parts = [f'<text class="head" x="0" y="{y + 18}">{escape(run.title)}</text>']
    for tick in range(0, 101, 20):
        parts.append(f'<line class="grid" x1="{_x(tick)}" x2="{_x(tick)}" y1="{y + TOP - 4}" y2="{bottom}"/>')
        parts.append(f'<text class="quiet" x="{_x(tick) - 6}" y="{bottom + 13}">{tick}</text>')
    for index, (row, score) in enumerate(bars):
        name = ", ".join(f"{axis} {title}" for axis, title in row.values.items())
        label = f"{name}, {network_title(score.student)}" if several else name
        parts += _bar(label, score, y + TOP + LINE * index, best=id(score) in best)
    return parts, bottom + 24


def _bar(name: str, score: ScoreRow, y: int, *, best: bool) -> Iterator[str]:
    middle, std = y + 7, score.std or 0.0
    yield f'<text x="0" y="{y + 12}">{escape(name)}</text>'
    width = round(_x(score.mean) - LABEL, 1)
    yield f'<rect class="{"best" if best else "bar"}" x="{LABEL}" y="{y}" width="{width}" height="14"/>'
    low, high = _x(max(score.mean - std, 0)), _x(min(score.mean + std, 100))
    yield f'<line class="whisker" x1="{low}" x2="{high}" y1="{middle}" y2="{middle}"/>'
    if score.paper is not None:
        x = _x(score.paper.top1_pct)
        yield f'<line class="ghost" x1="{x}" x2="{x}" y1="{y - 2}" y2="{y + 16}"/>'


def _x(top1_pct: float) -> float:
    return round(LABEL + (WIDTH - LABEL - 20) * top1_pct / 100, 1)
