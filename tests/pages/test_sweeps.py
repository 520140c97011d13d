"""Pages of sweeps: they read without scripts, and in a browser have a plot, no violation and no overflow."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from starlette.testclient import TestClient

from app import sweeps
from app.pages.sweep_form import values_of
from app.results.suites import RUNS
from tests.pages.site import SMALL, Site
from tests.pages.test_browser_site import AXE, SCHEMES
from tests.pages.test_pages import HOSTILE, csrf_of
from tests.pages.visitor import Opener, Visitor

FEW = SMALL.model_copy(update={"ipc": 1})
WORDS = {
    "name": HOSTILE[:40],
    "variants": [{"title": "<b>one</b>", "patch": {}}, {"title": "two", "patch": {"ipc": 2}}],
}


def submit(site: Site, *axes: dict[str, Any]) -> str:
    """A sweep's address."""
    chosen = axes or ({"name": "alpha", "path": "/method/alpha", "values": [0.2, 0.8]},)
    wanted = sweeps.SweepIn.model_validate(
        {"name": "Merge ratio", "spec": FEW.model_dump(mode="json"), "axes": list(chosen)}
    )
    sweep, _ = sweeps.submit(site.services, site.user, wanted)
    return f"/sweeps/{sweep.id}"


def test_a_list_without_sweeps_says_what_they_are(client: TestClient) -> None:
    assert "Nothing was varied yet" in client.get("/sweeps").text


def test_a_finished_sweep_reads_without_scripts(client: TestClient, site: Site) -> None:
    address = submit(site)
    site.player.play()
    page = client.get(address).text
    assert "2 of 2 jobs have ended: 2 succeeded." in page and "0.8" in page
    assert (
        len(
            re.findall(
                r'<td class="num[^"]*">\d+\.\d(<span class="sr-only"> \(best\)</span>)? <span class="quiet">±', page
            )
        )
        == 6
    ), "three subjects, two jobs"
    assert "Distilled images, last epoch: highest" in page and "chosen on the test set" in page
    plot = json.loads(html.unescape(re.findall(r'data-plot="([^"]*)"', page)[0]))
    assert plot["numbers"] == [0.2, 0.8] and [point[0] for point in plot["series"][0]["points"]] == [0, 1]
    assert "Merge ratio" in client.get("/sweeps").text and "2 of 2" in client.get("/sweeps").text


def test_other_subjects_and_labels_are_asked_for_in_the_address(client: TestClient, site: Site) -> None:
    address = submit(site)
    site.player.play()
    assert "Random real images: top-1" in client.get(f"{address}?subject=random").text
    assert client.get(f"{address}?student=nobody&labels=none&subject=none").status_code == 200


def test_a_job_links_to_its_sweep_and_can_be_varied(client: TestClient, site: Site) -> None:
    address = submit(site)
    job = re.findall(r'href="(/jobs/job_[^"]+)"', client.get(address).text)[0]
    page = client.get(job).text
    assert f'href="{address}">Merge ratio</a>' in page
    form = client.get(re.findall(r'href="(/sweeps/new[^"]+)"', page)[0]).text
    assert "The job “Merge ratio: alpha 0.2”" in form and '<option value="/method/alpha">' in form


def test_what_people_wrote_stays_text(client: TestClient, site: Site) -> None:
    address = submit(site, WORDS)
    site.player.play()
    for path in (address, f"{address}?part=true", "/sweeps"):
        page = client.get(path).text
        assert "<script>alert" not in page and "<b>one" not in page


def test_a_waiting_sweep_is_cancelled_by_a_button(client: TestClient, site: Site) -> None:
    address = submit(site)
    answer = client.post(f"{address}/cancel", data={"csrf": csrf_of(client.get(address).text)})
    assert answer.url.path == address and "2 cancelled" in answer.text


def test_the_form_makes_a_sweep(client: TestClient) -> None:
    page = client.get("/sweeps/new").text
    filled = {"csrf": csrf_of(page), "base": "preset:demo", "path0": "/method/alpha", "values0": "0.2, 0.8"}
    planned = client.post("/sweeps/new", data=filled | {"action": "check"}).text
    assert re.search(r"<dt>Jobs</dt><dd>2</dd>", planned) and "Saved by sharing" in planned
    made = client.post("/sweeps/new", data=filled | {"action": "submit"})
    assert made.url.path.startswith("/sweeps/swp_") and "alpha" in made.text


def test_the_form_takes_alternatives_that_change_several_fields(client: TestClient) -> None:
    filled = {"csrf": csrf_of(client.get("/sweeps/new").text), "base": "preset:demo", "name0": "method"}
    filled["variants0"] = "FADRM: {}\nRDED: {method: {method: rded}, patches: {difficulty: easy}}\n10: {ipc: 3}"
    made = client.post("/sweeps/new", data=filled | {"action": "submit"})
    assert made.url.path.startswith("/sweeps/swp_") and "FADRM · RDED · 10" in made.text


@pytest.mark.parametrize(
    "text",
    ["a: {ipc: 2020-01-01}", "a: {ipc: !!binary aGVsbG8=}", "a: {ipc: !!set {b}}", "a: {ipc: " + "[" * 300 + "]" * 300],
)
def test_alternatives_that_no_json_can_say_are_refused_at_their_row(client: TestClient, text: str) -> None:
    filled = {"csrf": csrf_of(client.get("/sweeps/new").text), "base": "preset:demo", "name0": "x", "variants0": text}
    for action in ("check", "submit"):
        answer = client.post("/sweeps/new", data=filled | {"action": action})
        assert answer.status_code == 422 and ("what JSON has" in answer.text or "no list of titles" in answer.text)


def test_the_form_makes_a_sweep_whatever_stands_where_its_key_was(client: TestClient) -> None:
    filled = {
        "csrf": csrf_of(client.get("/sweeps/new").text),
        "base": "preset:demo",
        "path0": "/seed",
        "values0": "1, 2",
    }
    made = client.post("/sweeps/new", data=filled | {"action": "submit", "idempotency_key": "k" * 300})
    assert made.url.path.startswith("/sweeps/swp_")
    deep = client.post("/sweeps/new", data=filled | {"action": "check", "values0": "[" * 5000 + "]" * 5000})
    assert deep.status_code == 422


def test_a_sweep_is_run_again_from_a_form_that_asks_for_the_same(client: TestClient, site: Site) -> None:
    axes = (WORDS, {"name": "side", "path": "/method/budgets", "values": [[2, 2], [4]]})
    address = submit(site, *axes)
    [link] = re.findall(r'href="(/sweeps/new\?sweep=[^"]+)"', client.get(address).text)
    page = client.get(link).text
    assert "<b>one" not in page and re.search(r"<dt>Jobs</dt><dd>4</dd>", page)
    names = [f"{name}{index}" for name in ("name", "path", "values", "variants") for index in range(3)]
    filled = {name: _typed(page, name) for name in (*names, "csrf")} | {"base": f"sweep:{address.rpartition('/')[2]}"}
    made = client.post("/sweeps/new", data=filled | {"action": "submit"}).url.path.rpartition("/")[2]
    with site.services.database.read() as session:
        old, new = (sweeps.get(session, site.user, one) for one in (address.rpartition("/")[2], made))
        assert new.id != old.id and (new.spec, new.axes) == (old.spec, old.axes)


def _typed(page: str, name: str) -> str:
    """What a control of a page holds."""
    found = re.search(rf'name="{name}"[^>]*? value="([^"]*)"|<textarea[^>]* name="{name}"[^>]*>([^<]*)<', page)
    assert found is not None, name
    return html.unescape(found[1] or found[2] or "")


def test_bases_are_grouped_by_data_set(client: TestClient) -> None:
    page = client.get("/sweeps/new").text
    assert page.index('<optgroup label="CIFAR-10">') < page.index('value="preset:cifar10-small"')


def test_an_ended_sweep_is_tried_again_or_deleted_by_buttons(client: TestClient, site: Site) -> None:
    address = submit(site)
    csrf = {"csrf": csrf_of(client.get(address).text)}
    assert "/delete" not in client.get(address).text
    client.post(f"{address}/cancel", data=csrf)
    assert "2 queued" in client.post(f"{address}/retry", data=csrf).text
    client.post(f"{address}/cancel", data=csrf)
    gone = client.post(f"{address}/delete", data=csrf)
    assert gone.url.path == "/sweeps" and address not in gone.text and client.get(address).status_code == 404


def test_a_suites_sweep_shows_the_papers_figures_beside_its_own(client: TestClient, site: Site) -> None:
    body = {
        "name": "ablation-patches",
        "spec": FEW.model_dump(mode="json"),
        "axes": list(RUNS["ablation-patches"][1].axes),
    }
    sweep, _ = sweeps.submit(site.services, site.user, sweeps.SweepIn.model_validate(body))
    page = client.get(f"/sweeps/{sweep.id}").text
    assert "ablation: Ablations on CIFAR-10" in page and "Table 3" in page and "ImageNet-1K, 10 per class" in page
    assert re.findall(r'<td class="num ghost">([^<]*)<', page) == ["48.4", "47.7"]


@pytest.mark.parametrize(
    ("typed", "slot", "told"),
    [
        ({"path1": "/method/alfa", "values1": "1"}, "row1-errors", "Did you mean /method/alpha?"),
        ({"path0": "/ipc", "values0": "1, 9000"}, "row0-errors", "5000"),
        ({"path0": "/ipc", "values0": ""}, "row0-errors", "at least 1"),
        ({"variants0": "just words"}, "row0-errors", "no list of titles"),
        ({"variants0": "a: &x {ipc: 1}\nb: *x"}, "row0-errors", "no list of titles"),
        ({"variants0": "a: {ipc: 0}"}, "row0-errors", "at least 1"),
        ({"variants0": "a: {}", "path0": "/ipc", "values0": "1"}, "row0-errors", "not both"),
        ({}, "plan", "Nothing varies yet."),
    ],
)
def test_what_is_wrong_is_told_at_its_row(client: TestClient, typed: dict[str, str], slot: str, told: str) -> None:
    filled = {"csrf": csrf_of(client.get("/sweeps/new").text), "base": "preset:demo", "action": "submit"}
    answer = client.post("/sweeps/new", data=filled | typed)
    assert answer.status_code == 422
    assert told in html.unescape(answer.text.partition(f'id="{slot}"')[2].partition("</fieldset>")[0])


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.2, 1", [0.2, 1]),
        ("resnet18, convnet3", ["resnet18", "convnet3"]),
        ("[500, 500], [2000]", [[500, 500], [2000]]),
        ("true, easy,", [True, "easy"]),
        ("", []),
    ],
)
def test_values_are_typed_as_people_type_them(text: str, values: list[Any]) -> None:
    assert values_of(text) == values


@pytest.mark.browser
def test_the_plot_is_drawn_and_the_pages_are_for_everybody(visit: Opener, visitor: Visitor, site: Site) -> None:
    lines, bars = submit(site), submit(site, WORDS, {"name": "seed", "path": "/seed", "values": [5, 6]})
    site.player.play()
    waiting = submit(site, {"name": "alpha", "path": "/method/alpha", "values": [0.3]})
    page = visit(lines)
    expect(page.locator("#plot[data-drawn] canvas")).to_be_visible()
    page.context.add_init_script(path=AXE)
    for address in (lines, bars, waiting, "/sweeps", "/sweeps/new"):
        _is_for_everybody(page, address)
    page.goto(bars)
    expect(page.locator("#legend span")).to_have_count(2)


def _is_for_everybody(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(address)
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        assert not found, (address, scheme, [(one["id"], one["nodes"][0]["html"]) for one in found])
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, address


@pytest.mark.browser
def test_a_running_sweep_keeps_itself_fresh(visit: Opener, site: Site) -> None:
    page = visit(submit(site))
    expect(page.get_by_text("0 of 2 jobs have ended: 2 queued.")).to_be_visible()
    site.player.play()
    expect(page.get_by_text("2 of 2 jobs have ended: 2 succeeded.")).to_be_visible()
    expect(page.locator("#plot[data-drawn] canvas")).to_be_visible()


@pytest.mark.browser
def test_the_form_is_checked_while_one_types(visit: Opener, visitor: Visitor) -> None:
    visitor.may_fail = True  # 422 is what is wanted
    page = visit("/sweeps/new")
    page.get_by_label("Path of field 1").fill("/method/alpha")
    page.get_by_label("Values of field 1").fill("0.2, 7")
    expect(page.locator("#row0-errors")).to_contain_text("at most 1")
    page.get_by_label("Values of field 1").fill("0.2, 0.7")
    expect(page.locator("#plan")).to_contain_text("Saved by sharing")
    expect(page.locator("#row0-errors")).to_be_empty()
