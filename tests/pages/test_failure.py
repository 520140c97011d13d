"""Failure is designed: each kind has a card that says what happened, what was needed and free, and offers a remedy."""

from __future__ import annotations

import html

import pytest
from starlette.testclient import TestClient

from app.pages import failure
from engine.errors import DatasetInvalid, DiskFull, Diverged, EngineError, ErrorReport, OutOfMemory
from engine.plan import StepKind
from fadrm.words import size
from tests.pages.site import SMALL, Site

SPEC = SMALL.model_dump(mode="json")
OOM = OutOfMemory("cuda:0 has too little memory.", requested_bytes=2_500_000_000, free_bytes=700_000_000)


def failed(site: Site, error: EngineError | ErrorReport) -> str:
    """A job that failed in recovery."""
    job_id = site.submit("Fails")
    site.player.play(until=StepKind.RECOVER, batches=2)
    site.player.fail(error if isinstance(error, ErrorReport) else error.report)
    return job_id


def report(code: str, **details: object) -> ErrorReport:
    return ErrorReport(code=code, message="It ended.", hint="Mind it.", details=details)


def test_out_of_memory_says_what_was_needed_and_free_and_offers_smaller_batches(client: TestClient, site: Site) -> None:
    job_id = failed(site, OOM)
    page = html.unescape(client.get(f"/jobs/{job_id}").text)
    for told in ("Out of GPU memory", "<dt>Needed</dt><dd>2.5 GB</dd>", "<dt>Free</dt><dd>700.0 MB</dd>", "Try again"):
        assert told in page
    assert "Last lines of the log" in page
    form = client.get(f"/jobs/new?clone={job_id}&remedy=smaller-batches").text
    assert 'name="/method:fadrm/batch" value="50"' in form or 'value="50"' in form


@pytest.mark.parametrize(
    ("error", "title", "remedies", "again"),
    [
        (OOM.report, "Out of GPU memory", ["smaller-batches"], True),
        (report("host_out_of_memory", exit_code=-9), "Out of memory", ["smaller-batches"], True),
        (Diverged("recovery", 9).report, "The loss is not finite", ["lower-rate", "fp32"], False),
        (DiskFull("No space is left.").report, "The disk is full", [], True),
        (DatasetInvalid("cat/1.png cannot be read.").report, "The images cannot be used", [], True),
        (report("worker_lost"), "The worker was lost", [], True),
        (report("engine_crashed", exit_code=-11, log=["Segmentation fault"]), "The engine crashed", [], True),
        (report("something_new"), "The job failed", [], True),
    ],
)
def test_each_kind_of_failure_has_its_card(error: ErrorReport, title: str, remedies: list[str], again: bool) -> None:
    found = failure.card(error.model_dump() | {"step": "Recover images", "kind": "recover"}, SPEC, size)
    assert found.title.startswith(title) and found.advice
    assert [name for name, _ in found.remedies] == remedies and found.helps_again == again
    assert ("Step", "Recover images") in found.facts
    assert found.words == tuple(error.details.get("log", ()))


@pytest.mark.parametrize("kind", ["teach", "recover", "evaluate"])
@pytest.mark.parametrize("name", failure.REMEDIES)
def test_every_remedy_gives_another_valid_spec(name: str, kind: str) -> None:
    changed = failure.remedied(SPEC, {"kind": kind}, name)
    assert changed != SPEC and failure.remedied(SPEC, {"kind": kind}, "nonsense") == SPEC


def test_the_engines_last_words_are_kept(client: TestClient, site: Site) -> None:
    job_id = failed(site, report("engine_crashed", exit_code=-11, log=["Traceback", "<b>Segmentation fault</b>"]))
    page = client.get(f"/jobs/{job_id}").text
    assert "Last words of the engine" in page and "&lt;b&gt;Segmentation fault" in page
