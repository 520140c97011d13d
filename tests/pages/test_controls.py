"""The buttons of a job's page that hold it, let it go on, and have it tried again."""

from __future__ import annotations

from starlette.testclient import TestClient

from engine.errors import ErrorReport
from engine.plan import StepKind
from tests.pages.site import Site
from tests.pages.test_pages import csrf_of


def test_a_job_is_paused_and_resumed_from_its_page(client: TestClient, site: Site) -> None:
    job_id = site.submit("Rests")
    page = client.get(f"/jobs/{job_id}").text
    assert 'id="pause"' in page and 'id="resume"' not in page
    page = client.post(f"/jobs/{job_id}/pause", data={"csrf": csrf_of(page)}).text
    assert site.job(job_id).state == "paused"
    assert "Paused by admin; nothing is done yet." in page and 'id="resume"' in page and 'id="cancel"' in page
    assert "Paused by admin" in client.get("/jobs").text
    client.post(f"/jobs/{job_id}/resume", data={"csrf": csrf_of(page)})
    assert site.job(job_id).state == "queued"


def test_a_failed_job_is_tried_again_from_its_page(client: TestClient, site: Site) -> None:
    job_id = site.submit("Fails")
    site.player.play(until=StepKind.RECOVER, batches=3)
    site.player.fail(ErrorReport(code="nan_loss", message="The loss is not finite.", hint="Lower the learning rate."))
    page = client.get(f"/jobs/{job_id}").text
    assert "Try again" in page
    page = client.post(f"/jobs/{job_id}/retry", data={"csrf": csrf_of(page)}).text
    assert site.job(job_id).state == "running" and 'id="failure"' not in page
