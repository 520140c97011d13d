"""What a reader takes along from a job's page: its score card as a table, and the commands that make the job again."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from app.models import Job
from app.views import ResultsOut
from app.views.compare import DifferenceOut, differences
from app.views.results import RowOut
from engine.networks import network_title
from engine.presets import PRESETS, Preset

HEAD = ("Images", "Student", "Labels", "ipc", "Runs", "Last epoch %", "Spread", "Best on test %")
MOST_DIFFERENCES = 12  # from a preset that a spec is still said to come from


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The preset that a spec is nearest to, and where it differs from it."""

    preset: Preset
    differences: tuple[DifferenceOut, ...]  # values: of the preset, of the job


def tables(results: ResultsOut) -> dict[str, str]:
    """The score card as CSV, Markdown and LaTeX."""
    rows = [_cells(row) for row in results.rows]
    return {"CSV": _csv(rows), "Markdown": _markdown(rows), "LaTeX": _latex(rows)}


def _cells(row: RowOut) -> list[str]:
    means = [f"{value:.2f}" if value is not None else "" for value in (row.mean, row.std, row.best_mean)]
    return [row.title, network_title(row.student), row.labels, str(row.ipc), str(row.n), *means]


def _csv(rows: Sequence[Sequence[str]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([HEAD, *rows])
    return file.getvalue()


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [HEAD, ["---"] * 3 + ["---:"] * 5, *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _latex(rows: Sequence[Sequence[str]]) -> str:
    """For the package booktabs; the spread stands behind the mean."""
    lines = [[*row[:5], f"${row[5]} \\pm {row[6]}$" if row[6] else row[5], row[7]] for row in rows]
    head = [*HEAD[:5], "Last epoch %", "Best on test %"]
    body = "".join("  " + " & ".join(_escaped(cell) for cell in line) + " \\\\\n" for line in lines)
    top = " & ".join(_escaped(cell) for cell in head)
    return f"\\begin{{tabular}}{{lllrrrr}}\n  \\toprule\n  {top} \\\\\n  \\midrule\n{body}  \\bottomrule\n\\end{{tabular}}\n"


def _escaped(cell: str) -> str:
    if cell.startswith("$"):
        return cell
    for character in "&%#_{}":
        cell = cell.replace(character, f"\\{character}")
    return cell


def origin(spec: dict[str, Any]) -> Origin | None:
    """The preset with the fewest differences, of those with the same method and data set; None where none is near."""
    alike = [
        one
        for one in PRESETS.values()
        if one.spec.method.method == spec["method"]["method"] and one.spec.dataset.source == spec["dataset"]["source"]
    ]
    found = [(one, tuple(differences([one.spec.model_dump(mode="json"), spec]))) for one in alike]
    best = min(found, key=lambda pair: len(pair[1]), default=None)
    if best is None or len(best[1]) > MOST_DIFFERENCES:
        return None
    return Origin(preset=best[0], differences=best[1])


def commands(job: Job, base_url: str) -> dict[str, str]:
    """How to submit this job again: from a shell by `fadrm` and by `curl`, and from Python."""
    request = {"name": job.name, "spec": job.spec}
    told = yaml.safe_dump(request, sort_keys=False, allow_unicode=True)
    body = json.dumps(request, ensure_ascii=False)
    return {
        "fadrm": f"cat > job.yaml <<'END'\n{told}END\nfadrm submit job.yaml --wait",
        "curl": (
            f"curl --fail-with-body {base_url}api/v1/jobs \\\n"
            f'  -H "Authorization: Bearer $FADRM_TOKEN" \\\n'
            f'  -H "Idempotency-Key: $(uuidgen)" \\\n'
            f"  --json {shlex.quote(body)}"
        ),
        "Python": (
            "import json\nfrom fadrm import Client\n\n"
            f"job = Client({base_url.rstrip('/')!r}).submit(json.loads({body!r}))\nprint(job.web)"
        ),
    }
