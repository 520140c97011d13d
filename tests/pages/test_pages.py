"""Every page has its content without scripts, and what people wrote stays text."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from engine.errors import ErrorReport
from engine.plan import StepKind
from tests.pages.site import SMALL, Site

HOSTILE = '<script>alert("x")</script> & "quotes"'


def test_an_empty_list_offers_the_presets_and_the_demo(client: TestClient) -> None:
    page = client.get("/").text
    assert "Nothing was distilled yet" in page
    assert "Demo: handwritten digits" in page
    assert "Run the demo" in page


def test_the_list_says_how_every_job_stands(client: TestClient, site: Site) -> None:
    site.submit("The first")
    site.player.play()
    site.submit("The second")
    page = client.get("/jobs").text
    assert page.index("The second") < page.index("The first")
    assert "succeeded" in page and "queued" in page
    assert re.search(r"9\d\.\d %", page), "the best result of the first"


def test_filters_stand_in_the_address(client: TestClient, site: Site) -> None:
    site.submit("Alpha")
    site.submit("Beta")
    page = client.get("/jobs?q=alp&state=queued").text
    assert "Alpha" in page and "Beta" not in page
    assert 'value="alp"' in page
    assert "No job matches" in client.get("/jobs?state=failed").text


def test_long_lists_have_pages(client: TestClient, site: Site) -> None:
    for number in range(27):
        site.submit(f"Number {number:02d}")
    first = client.get("/jobs").text
    assert "Number 26" in first and "Number 01<" not in first
    older = re.search(r'href="(/jobs\?after=[^"]+)"', first)
    assert older is not None
    assert "Number 01" in client.get(older[1]).text


def test_a_job_that_is_done_reads_without_scripts(client: TestClient, site: Site) -> None:
    job_id = site.submit("Done")
    site.player.play()
    page = client.get(f"/jobs/{job_id}").text
    assert "Finished after" in page
    assert page.count("/api/v1/previews/") > 2, "contact sheets"
    assert re.search(r"<td class=\"num strong\">9\d\.\d <span", page), "accuracies with their spread"
    assert ("points" in page and "against" in page) or "better" in page, "the verdict"
    assert "distilled.zip" in page and "sha256sum -c" in page and "curl -C -" in page
    assert "Cross-entropy (Recover images)" in page, "curves as a table"
    assert "Patches mixed in after iteration 20" in page, "the log"
    assert "source: digits" in page, "the spec"
    assert "not chosen" not in page and "chosen on the test set" in page


def test_a_waiting_job_says_why_and_can_be_cancelled(client: TestClient, site: Site) -> None:
    job_id = site.submit("Waits")
    page = client.get(f"/jobs/{job_id}").text
    assert "Waiting: no worker is connected." in page
    answer = client.post(f"/jobs/{job_id}/cancel", data={"csrf": csrf_of(page)})
    assert answer.url.path == f"/jobs/{job_id}"
    assert site.job(job_id).state == "cancelled"
    assert "Run again" in answer.text


def test_a_job_between_two_steps_waits_and_tells_how_many_are_done(client: TestClient, site: Site) -> None:
    job_id = site.submit("Between two steps")
    site.player.play(until=StepKind.TEACH)
    assert site.job(job_id).state == "running"
    page = client.get("/jobs").text
    assert "waiting</span>" in page and re.search(r"2 of \d+ steps", page)


def test_a_job_without_students_says_so_and_promises_none(client: TestClient, site: Site) -> None:
    evaluation = SMALL.evaluation.model_copy(update={"students": ()})
    job_id = site.submit("Images alone", SMALL.model_copy(update={"evaluation": evaluation}))
    page = client.get(f"/jobs/{job_id}").text
    assert "No student was named: there is no score card." in page and "while students train" not in page


def test_a_failed_job_has_a_card_with_code_sentence_and_hint(client: TestClient, site: Site) -> None:
    job_id = site.submit("Fails")
    site.player.play(until=StepKind.RECOVER, batches=3)
    site.player.fail(ErrorReport(code="nan_loss", message="The loss is not finite.", hint="Lower the learning rate."))
    page = client.get(f"/jobs/{job_id}").text
    for text in ("nan_loss", "The loss is not finite.", "Lower the learning rate.", "Last lines of the log"):
        assert text in page


def test_running_again_makes_a_job_of_the_same_spec(client: TestClient, site: Site) -> None:
    job_id = site.submit("Again")
    page = client.get(f"/jobs/{job_id}").text
    answer = client.post(f"/jobs/{job_id}/rerun", data={"csrf": csrf_of(page)})
    again = answer.url.path.rpartition("/")[2]
    assert again != job_id
    assert site.job(again).spec == site.job(job_id).spec


def test_a_button_without_the_pages_token_does_nothing(client: TestClient, site: Site) -> None:
    job_id = site.submit("Stays")
    answer = client.post(f"/jobs/{job_id}/cancel", data={"csrf": "wrong"})
    assert answer.status_code == 403
    assert "Not allowed" in answer.text
    assert site.job(job_id).state == "queued"


def test_what_people_wrote_stays_text(client: TestClient, site: Site) -> None:
    job_id = site.submit(HOSTILE)
    site.player.play(until=StepKind.TEACH, batches=1)
    site.player.fail(ErrorReport(code="x", message=HOSTILE, hint=HOSTILE))
    for path in ("/jobs", f"/jobs/{job_id}", f"/jobs/{job_id}/parts", f"/jobs/new?clone={job_id}"):
        page = client.get(path).text
        assert "&lt;script&gt;alert" in page
        assert "<script>alert" not in page


def test_errors_come_in_the_shell_of_every_page(client: TestClient) -> None:
    missing = client.get("/jobs/job_none")
    assert missing.status_code == 404
    assert "There is no job job_none" in missing.text and "<nav" in missing.text
    assert client.get("/nowhere").status_code == 404


def test_workers_are_listed(client: TestClient, site: Site) -> None:
    assert "No worker was heard of yet" in client.get("/workers").text
    site.submit()
    site.player.play(until=StepKind.TEACH, batches=1)
    site.player.beat()
    page = client.get("/workers").text
    assert "bench:cpu:0" in page and "online" in page and "Train teacher" in page


def test_nobody_sees_a_page_without_logging_in(site: Site) -> None:
    with TestClient(site.app, base_url="http://127.0.0.1", follow_redirects=False) as stranger:
        for path in ("/", "/jobs", "/jobs/new", "/workers", "/docs", "/jobs/job_1/parts"):
            assert stranger.get(path).headers["location"].startswith("/login")


@pytest.mark.parametrize("path", ["/jobs", "/jobs/new", "/workers", "/docs"])
def test_pages_hold_no_inline_script_and_no_inline_style(client: TestClient, site: Site, path: str) -> None:
    site.submit()
    page = client.get(path).text
    assert not re.findall(r"<script(?![^>]*\bsrc=)", page)
    assert not re.findall(r"\bstyle=|\bon\w+=", page)


def csrf_of(page: str) -> str:
    """What the forms of a page send."""
    found = re.search(r'name="csrf-token" content="(\w+)"', page)
    assert found is not None
    return found[1]


# The form of a new job, posted as it is without scripts.


def fields_of(page: str) -> dict[str, list[str]]:
    """What a browser would post from the form of a page."""
    posted: dict[str, list[str]] = {}
    form = page[page.index('id="new"') :]
    for tag in re.findall(r"<input [^>]*>", form):
        attributes = dict(re.findall(r'([\w-]+)="([^"]*)"', tag))
        if attributes.get("type") in {"checkbox", "radio"} and " checked" not in tag:
            continue
        if "name" in attributes:
            posted.setdefault(attributes["name"], []).append(attributes.get("value", ""))
    for name, body in re.findall(r'<select [^>]*name="([^"]*)"[^>]*>(.*?)</select>', form, re.DOTALL):
        chosen = re.search(r'<option value="([^"]*)" selected', body)
        assert chosen is not None, name
        posted[name] = [chosen[1]]
    return posted


def test_the_form_gives_the_presets_own_spec(client: TestClient, site: Site) -> None:
    page = client.get("/jobs/new?preset=demo").text
    assert "About, on one CPU" in page, "the plan"
    answer = client.post("/jobs/new", data=fields_of(page) | {"name": "From the form", "action": "submit"})
    job = site.job(answer.url.path.rpartition("/")[2])
    assert job.name == "From the form"
    assert job.spec == client.get("/api/v1/presets").json()[0]["spec"]


def test_the_same_form_sent_twice_is_one_job(client: TestClient) -> None:
    posted = fields_of(client.get("/jobs/new").text)
    first, second = (client.post("/jobs/new", data=posted).url for _ in range(2))
    assert first == second


def test_a_wrong_field_comes_back_with_what_was_typed_and_why(client: TestClient) -> None:
    posted = fields_of(client.get("/jobs/new").text) | {"/ipc": "many"}
    answer = client.post("/jobs/new", data=posted)
    assert answer.status_code == 422
    assert 'value="many"' in answer.text
    errors = re.search(r'id="f-ipc-errors">(.*?)</div>', answer.text, re.DOTALL)
    assert errors is not None and "many" in errors[1]
    assert "There is no plan yet" in answer.text


def test_what_the_data_set_cannot_give_is_said_at_the_field(client: TestClient) -> None:
    answer = client.post("/jobs/new", data=fields_of(client.get("/jobs/new").text) | {"/ipc": "1000"})
    assert answer.status_code == 422
    errors = re.search(r'id="f-ipc-errors">(.*?)</div>', answer.text, re.DOTALL)
    assert errors is not None and "training images" in errors[1]


def test_teachers_are_added_and_removed_without_scripts(client: TestClient) -> None:
    page = client.get("/jobs/new").text
    two = client.post("/jobs/new", data=fields_of(page) | {"action": "add-teacher"}).text
    assert "Teacher 2" in two and 'name="/teachers/1/network"' in two
    assert 'value="fadrm+" checked' in two and "There is no plan yet" not in two
    one = client.post("/jobs/new", data=fields_of(two) | {"action": "remove-teacher"}).text
    assert "Teacher 2" not in one and 'value="fadrm" checked' in one


def test_presets_are_filtered_by_the_address_without_scripts(client: TestClient) -> None:
    page = client.get("/jobs/new?set=ImageWoof&ipc=10&method=fadrm").text
    shown = re.findall(r'<li data-set="(\w+)" data-ipc="(\d+)" data-method="([^"]+)">', page)
    assert shown == [("ImageWoof", "10", "fadrm")] * 2
    assert "2 of them shown" in page


def test_the_plan_says_how_large_labels_and_downloads_become(client: TestClient) -> None:
    posted = fields_of(client.get("/jobs/new").text) | {"/nested": "1, 5", "/exports": "parquet"}
    page = client.post("/jobs/new", data=posted | {"action": "check"}).text
    for words in (
        "Download of 5 images per class",
        "Soft labels, 5 of each class",
        "Export 10 images per class as parquet",
    ):
        assert words in page


def test_a_clone_begins_with_the_spec_of_its_job(client: TestClient, site: Site) -> None:
    job_id = site.submit("To be cloned", SMALL.model_copy(update={"seed": 4711}))
    page = client.get(f"/jobs/new?clone={job_id}").text
    assert 'value="To be cloned"' in page and 'value="4711"' in page


def test_the_form_says_who_will_see_a_job_and_a_clone_of_a_private_one_stays_private(
    client: TestClient, site: Site
) -> None:
    posted = fields_of(client.get("/jobs/new?preset=demo").text)
    assert posted["visibility"] == ["private"], "the default is the team, and there is none"
    refused = client.post("/jobs/new", data=posted | {"visibility": "world", "action": "submit"})
    assert refused.status_code == 422 and "private" in refused.text
    shown = client.post("/jobs/new", data=posted | {"visibility": "all", "action": "submit"}).url.path
    job_id = shown.rpartition("/")[2]
    assert site.job(job_id).visibility == "all"
    assert fields_of(client.get(f"/jobs/new?clone={job_id}").text)["visibility"] == ["all"]
    again = fields_of(client.get(f"/sweeps/new?job={job_id}").text)
    assert again["visibility"] == ["all"]
    filled = again | {"path0": "/ipc", "values0": "1, 2", "visibility": "private", "action": "submit"}
    made = client.post("/sweeps/new", data=filled)
    assert "only its owner" in made.text and made.url.path.startswith("/sweeps/swp_")


def test_the_demo_is_one_click(client: TestClient, site: Site) -> None:
    page = client.get("/jobs").text
    answer = client.post("/jobs/demo", data={"csrf": csrf_of(page), "idempotency_key": "k"})
    assert site.job(answer.url.path.rpartition("/")[2]).name == "Demo: handwritten digits"


def test_who_may_only_look_is_offered_nothing_to_do(client: TestClient, site: Site) -> None:
    job_id = site.submit("Looked at")
    site.demote()
    page = client.get(f"/jobs/{job_id}").text
    assert "Looked at" in page and "Cancel" not in page and "Clone and edit" not in page
    assert client.post(f"/jobs/{job_id}/cancel", data={"csrf": csrf_of(page)}).status_code == 403
