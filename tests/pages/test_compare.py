"""Jobs side by side, as people see them."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect
from starlette.testclient import TestClient

from tests.pages.site import SMALL, Site
from tests.pages.test_pages import csrf_of
from tests.pages.visitor import Opener


def two(site: Site) -> list[str]:
    """Two finished jobs."""
    ids = [site.submit("Half"), site.submit("Fifth", SMALL.model_copy(update={"seed": 3}))]
    site.player.play()
    return ids


def test_chosen_jobs_are_compared_without_scripts(client: TestClient, site: Site) -> None:
    ids = two(site)
    csrf = csrf_of(client.get("/jobs").text)
    answer = client.post("/jobs/bulk", data={"csrf": csrf, "id": ids, "action": "compare"})
    page = answer.text
    assert str(answer.url).endswith("/compare?ids=" + ",".join(ids))
    assert "<code>/seed</code>" in page and "/method" not in page, "only what differs"
    assert page.count("/api/v1/previews/") > 1 and "Recover: total loss (Half)" in page
    assert "±" in page and "Distilled" in page


def test_one_job_has_nothing_to_be_compared_with(client: TestClient, site: Site) -> None:
    answer = client.get(f"/compare?ids={site.submit()}")
    assert answer.status_code == 422 and "two to 8" in answer.text


@pytest.mark.browser
def test_one_slider_moves_the_images_of_all(visit: Opener, site: Site) -> None:
    page = visit(f"/compare?ids={','.join(two(site))}")
    expect(page.locator("#chart-compare canvas")).to_be_visible()
    expect(page.locator("figcaption").first).to_have_text("Iteration 39 of 40")
    page.locator("#share").fill("50")
    expect(page.locator("[data-at='0']")).to_have_text("Iteration 20 of 40")
    expect(page.locator("[data-at='1']")).to_have_text("Iteration 20 of 40")
    page.locator("#chart-compare-of").select_option("evaluate.top1")
    page.locator("[data-smooth]").fill("0.5")
    expect(page.locator("#chart-compare [data-legend]")).to_contain_text("A Half")
