"""The list of jobs: filters in the address, and what is done to several jobs at once."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from engine.methods import RandomReal
from engine.spec import Evaluation
from tests.pages.site import SMALL, Site
from tests.pages.test_pages import csrf_of

RANDOM = SMALL.model_copy(
    update={"method": RandomReal(), "evaluation": Evaluation(students=("convnet3_w32",), baselines=())}
)


def names(page: str) -> list[str]:
    """The jobs of a list, in order."""
    return re.findall(r'class="c-name"><a href="/jobs/job_\w+">([^<]*)</a>', page)


def test_each_filter_narrows_the_list_and_stands_in_the_form(client: TestClient, site: Site) -> None:
    site.submit("Recovered")
    site.submit("Drawn", RANDOM)
    assert names(client.get("/jobs").text) == ["Drawn", "Recovered"]
    page = client.get("/jobs?method=random&dataset=digits").text
    assert names(page) == ["Drawn"] and '<option value="random" selected>' in page and 'value="digits"' in page
    assert names(client.get("/jobs?method=fadrm").text) == ["Recovered"]
    assert names(client.get("/jobs?dataset=cifar10").text) == []
    assert '<option value="digits">' in client.get("/jobs").text, "data sets are offered"


def test_filters_stay_while_one_leafs_through_the_list(client: TestClient, site: Site) -> None:
    for number in range(27):
        site.submit(f"Number {number:02d}")
    site.submit("Drawn", RANDOM)
    older = re.search(r'href="(/jobs\?[^"]*after=[^"]+)"', client.get("/jobs?method=fadrm&q=number").text)
    assert older is not None
    page = client.get(older[1].replace("&amp;", "&")).text
    assert names(page) == ["Number 01", "Number 00"] and "method=fadrm" in page


@pytest.mark.parametrize(
    ("action", "told", "state"),
    [("pause", "2 jobs paused.", "paused"), ("cancel", "2 jobs cancelled.", "cancelled")],
)
def test_several_jobs_are_changed_at_once(client: TestClient, site: Site, action: str, told: str, state: str) -> None:
    ids = [site.submit(f"Number {number}") for number in range(3)]
    csrf = csrf_of(client.get("/jobs").text)
    answer = client.post("/jobs/bulk?q=Number", data={"csrf": csrf, "id": ids[:2], "action": action})
    assert told in answer.text and 'value="Number"' in answer.text, "the filters stay"
    assert [site.job(job_id).state for job_id in ids] == [state, state, "queued"]


def test_one_refusal_stops_no_other(client: TestClient, site: Site) -> None:
    ended, waits = site.submit("Ended"), site.submit("Waits")
    site.cancel(ended)
    csrf = csrf_of(client.get("/jobs").text)
    page = client.post("/jobs/bulk", data={"csrf": csrf, "id": [ended, "job_none", waits], "action": "pause"}).text
    assert "1 job paused; 2 could not be" in page and site.job(waits).state == "paused"


def test_ended_jobs_are_put_into_the_trash_together(client: TestClient, site: Site) -> None:
    ended, waits = site.submit("Ended"), site.submit("Waits")
    site.cancel(ended)
    csrf = csrf_of(client.get("/jobs").text)
    page = client.post("/jobs/bulk", data={"csrf": csrf, "id": [ended, waits], "action": "delete"}).text
    assert "1 job put into the trash; 1 could not be" in page and names(page) == ["Waits"]


def test_nothing_else_can_be_done_to_several(client: TestClient, site: Site) -> None:
    job_id, csrf = site.submit(), csrf_of(client.get("/jobs").text)
    assert client.post("/jobs/bulk", data={"csrf": csrf, "id": job_id, "action": "explode"}).status_code == 422
    assert client.post("/jobs/bulk", data={"csrf": "wrong", "id": job_id, "action": "cancel"}).status_code == 403
    site.demote()
    page = client.get("/jobs").text
    assert 'value="compare"' in page and 'value="cancel"' not in page
    answer = client.post("/jobs/bulk", data={"csrf": csrf_of(page), "id": job_id, "action": "cancel"})
    assert answer.status_code == 403 and site.job(job_id).state == "queued"
