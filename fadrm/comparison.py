"""Jobs side by side: what differs in their specs first, then their score cards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fadrm.errors import ClientError
from fadrm.jobs import Job
from fadrm.models import Answer, Row

if TYPE_CHECKING:
    from fadrm.client import Client


class Difference(Answer):
    """A field of the spec that differs: its JSON pointer, and its value in each job, null where a job has none."""

    pointer: str
    values: list[Any]


class Score(Answer):
    """A line of the score cards, and what each job reached on it; null where a job has no such line."""

    subject: str
    title: str
    student: str
    labels: str
    rows: list[Row | None]


class Comparison(Answer):
    """Some jobs, in the order in which they were named."""

    jobs: list[Job]
    differences: list[Difference]
    scores: list[Score]

    def _repr_html_(self) -> str:
        from fadrm import notebook

        return notebook.comparison(self)


def compare(client: Client, job_ids: Sequence[str]) -> Comparison:
    """Read what there is of these jobs. Raises ClientError for fewer than two."""
    if len(job_ids) < 2:
        raise ClientError("One job has nothing to be compared with.", "Name two jobs or more.")
    jobs = [client.job(job_id) for job_id in job_ids]
    specs = [dict(_leaves(client.spec(job_id))) for job_id in job_ids]
    cards = [{_line(row): row for row in client.results(job_id).rows} for job_id in job_ids]
    pointers = dict.fromkeys(pointer for spec in specs for pointer in spec)
    lines = dict.fromkeys(line for card in cards for line in card)
    differences = [(pointer, [spec.get(pointer) for spec in specs]) for pointer in pointers]
    return Comparison(
        jobs=jobs,
        differences=[
            Difference(pointer=pointer, values=values)
            for pointer, values in differences
            if any(value != values[0] for value in values)
        ],
        scores=[_score(line, [card.get(line) for card in cards]) for line in lines],
    )


def _line(row: Row) -> tuple[str, str, str]:
    return row.subject, row.student, row.labels


def _score(line: tuple[str, str, str], rows: list[Row | None]) -> Score:
    title = next(row.title for row in rows if row is not None)
    return Score(subject=line[0], title=title, student=line[1], labels=line[2], rows=rows)


def _leaves(value: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value of a spec by its pointer; a list of plain values is one."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{pointer}/{key}")
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{pointer}/{index}")
    else:
        yield pointer, value
