"""The page of the queue."""

from __future__ import annotations

import re

from sqlalchemy import update
from starlette.testclient import TestClient

from app import auth, planning
from app.models import Step
from engine.plan import StepKind
from tests.pages.site import SMALL, Site
from tests.pages.test_pages import csrf_of


def seeded(site: Site, name: str, seed: int) -> str:
    return site.submit(name, SMALL.model_copy(update={"seed": seed}))


def order(page: str) -> list[str]:
    """Names of the jobs in line."""
    line = page[page.index('data-part="line"') :]
    return re.findall(r'<th scope="row"><a href="/jobs/job_\w+">([^<]*)</a>', line)


def test_the_queue_shows_what_runs_and_what_waits_and_why(client: TestClient, site: Site) -> None:
    assert "Nobody waits" in client.get("/queue").text
    seeded(site, "Runs", 0)
    site.player.play(until=StepKind.TEACH, batches=2)
    seeded(site, "Second", 1)
    seeded(site, "Third", 2)
    page = client.get("/queue").text
    assert "bench:cpu:0" in page and "Runs</a>" in page and "Train teacher" in page
    assert order(page) == ["Second", "Third"] and "Waiting" in page


def test_a_job_is_moved_by_buttons(client: TestClient, site: Site) -> None:
    seeded(site, "First", 0)
    later = seeded(site, "Second", 1)
    page = client.get("/queue").text
    assert order(page) == ["First", "Second"]
    answer = client.post(f"/queue/{later}/rank", data={"csrf": csrf_of(page), "priority": "1"})
    assert order(answer.text) == ["Second", "First"] and site.job(later).priority == 1
    assert client.post(f"/queue/{later}/rank", data={"csrf": csrf_of(page), "priority": "9"}).status_code == 422


def test_jobs_of_others_keep_their_places_and_their_names(client: TestClient, site: Site) -> None:
    with site.services.database.write() as session:
        stranger = auth.add_user(session, "stranger", "member")
    site.demote()
    planning.submit(site.services, stranger, SMALL, "Secret", None)
    page = client.get("/queue").text
    assert "Somebody else’s job" in page and "Secret" not in page


def test_of_a_step_of_others_one_reads_what_kind_it_is_and_not_of_what(client: TestClient, site: Site) -> None:
    with site.services.database.write() as session:
        stranger = auth.add_user(session, "stranger", "member")
    job_id = planning.submit(site.services, stranger, SMALL, "Secret", None)[0].id
    with site.services.database.write() as session:
        session.execute(update(Step).where(Step.job_id == job_id).values(title="Read the images Unannounced"))
    site.player.play(until=StepKind.TEACH, batches=2)
    assert "Unannounced" in client.get("/queue").text  # an administrator sees every job
    site.demote()
    page = client.get("/queue?part=true").text
    assert "somebody else’s job" in page and "training the teacher" in page and "Unannounced" not in page
