"""The page of a job in a real browser, while a job runs: curves, images and table appear, and nothing moves under the reader."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from engine.errors import ErrorReport
from engine.plan import StepKind
from tests.pages.site import Port, Site
from tests.pages.visitor import Opener, Visitor

pytestmark = pytest.mark.browser
FRESH = re.compile("live|polling")  # a stream that takes long to open, on a busy machine, is not waited for


def job_page(visit: Opener, job_id: str) -> Page:
    page = visit(f"/jobs/{job_id}")
    page.wait_for_selector("#job[data-ready]", state="attached")
    return page


def iteration(page: Page) -> str:
    return page.locator("#iteration").inner_text()


def test_a_job_unfolds_while_one_looks(visit: Opener, site: Site) -> None:
    job_id = site.submit("Unfolds")
    page = job_page(visit, job_id)
    expect(page.locator("#fresh")).to_have_attribute("data-state", FRESH)
    expect(page.locator("#no-images")).to_be_visible()

    site.player.play(until=StepKind.TEACH, batches=4)
    expect(page.locator(".state.running").first).to_be_visible()
    expect(page.locator("#chart-teacher [data-legend]")).to_contain_text("Accuracy")
    expect(page.locator("#chart-teacher canvas")).to_be_visible()
    expect(page.locator('[data-stage="teach"] [data-fact]')).to_have_text("50 %")

    site.player.play(until=StepKind.RECOVER, batches=0)
    expect(page.locator("#tiles .tile")).to_have_count(10)
    expect(page.locator("#iteration-note")).to_contain_text("Real images")
    site.player.play(until=StepKind.RECOVER, batches=10)
    expect(page.locator("#chart-recover canvas")).to_be_visible()
    expect(page.locator("#iteration")).to_contain_text("of 40")
    seen = iteration(page)
    site.player.play(until=StepKind.RECOVER, batches=14)
    expect(page.locator("#ticks b")).to_have_count(1)
    expect(page.locator("#iteration")).not_to_have_text(seen)
    expect(page.locator("#lines")).to_contain_text("Patches mixed in after iteration 20")

    site.player.play(until=StepKind.EVALUATE, batches=12)
    expect(page.locator("#chart-students [data-legend]")).to_contain_text("distilled")

    site.player.play()
    expect(page.locator(".scores tr.distilled .strong")).to_contain_text("±")
    expect(page.locator(".verdict").first).to_contain_text("labels")
    expect(page.locator("#download")).to_contain_text("distilled.zip")
    expect(page.locator(".job-sentence .state")).to_contain_text("succeeded")
    expect(page.locator("#fresh")).to_be_hidden()
    expect(page.locator("#status")).to_contain_text("Finished")


def test_the_slider_stays_where_the_reader_put_it(visit: Opener, site: Site) -> None:
    job_id = site.submit()
    site.player.play(until=StepKind.RECOVER, batches=12)
    page = job_page(visit, job_id)
    expect(page.locator("#follow")).to_have_attribute("aria-pressed", "true")
    page.locator("#time").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#follow")).to_have_attribute("aria-pressed", "false")
    chosen = iteration(page)
    ticks = page.locator("#ticks i").count()
    page.evaluate("scrollTo(0, 120)")
    site.player.play(until=StepKind.RECOVER, batches=15)
    expect(page.locator("#ticks i")).not_to_have_count(ticks)
    assert iteration(page) == chosen
    assert page.evaluate("document.activeElement.id") == "time"
    assert page.evaluate("scrollY") == 120
    page.locator("#follow").click()
    expect(page.locator("#iteration")).not_to_have_text(chosen)


def test_images_show_their_pixels_their_names_and_their_source(visit: Opener, site: Site) -> None:
    job_id = site.submit()
    site.player.play()
    page = job_page(visit, job_id)
    expect(page.locator("#tiles .tile figcaption").nth(3)).to_have_text("3 · ipc 0")
    assert page.locator(".tile-image i").first.evaluate("e => getComputedStyle(e).imageRendering") == "pixelated"
    page.locator("#time").focus()
    page.keyboard.press("Home")
    expect(page.locator("#iteration-note")).to_contain_text("source patches")
    page.keyboard.press("Shift+ArrowRight")
    expect(page.locator("#iteration")).to_contain_text("Iteration 21 ")
    expect(page.locator("#iteration-note")).to_contain_text("α = 0.5")
    wide = page.locator(".tile-image").first.bounding_box()
    page.locator("#smaller").click()
    narrow = page.locator(".tile-image").first.bounding_box()
    assert wide and narrow and narrow["width"] < wide["width"]
    page.locator("#wipe").fill("50")
    clipped = page.locator(".tile-image .then").first.evaluate("e => getComputedStyle(e).clipPath")
    assert "50%" in clipped
    page.locator("#difference").click()
    then = page.locator(".tile-image .then").first
    assert then.evaluate("e => getComputedStyle(e).filter") == "invert(1)"
    expect(page.locator("#wipe")).to_be_disabled()


def test_every_chart_is_a_table_too(visit: Opener, site: Site) -> None:
    job_id = site.submit()
    site.player.play()
    page = job_page(visit, job_id)
    page.locator("#chart-recover [data-table]").click()
    table = page.locator("#chart-recover table")
    expect(table).to_contain_text("Cross-entropy")
    expect(table).to_contain_text("20 (patches mixed in, α = 0.5)")
    page.locator("#chart-recover [data-time]").click()
    expect(page.locator("#chart-recover [data-time]")).to_have_attribute("aria-pressed", "true")
    expect(table.locator("thead")).to_contain_text("after")
    expect(table.locator("tbody th").first).to_have_text(re.compile(r"^[\d.]+ (s|min)$"))
    page.locator("#chart-recover [data-log]").click()
    page.locator("#chart-recover [data-smooth]").fill("0.9")
    page.locator("#chart-recover [data-table]").click()
    expect(page.locator("#chart-recover canvas")).to_be_visible()
    expect(page.locator("#chart-recover [data-legend]")).to_contain_text("last")


def test_the_page_goes_on_by_itself_when_the_server_comes_back(
    visit: Opener, visitor: Visitor, site: Site, port: Port
) -> None:
    job_id = site.submit()
    site.player.play(until=StepKind.TEACH, batches=3)
    page = job_page(visit, job_id)
    expect(page.locator("#fresh")).to_have_attribute("data-state", FRESH)
    visitor.may_fail = True
    port.down()
    expect(page.locator("#fresh")).to_have_attribute("data-state", "offline")
    site.player.play(until=StepKind.RECOVER, batches=12)  # what happens meanwhile is not lost
    port.up()
    expect(page.locator("#fresh")).not_to_have_attribute("data-state", "offline")
    expect(page.locator("#tiles .tile")).to_have_count(10)
    expect(page.locator("#lines")).to_contain_text("Choose patches")
    seqs = page.locator("#lines li").evaluate_all("lines => lines.map(line => line.value)")
    assert seqs == sorted(set(seqs)), "every line once, in order"


def test_where_streams_do_not_pass_the_page_asks(visitor: Visitor, site: Site) -> None:
    job_id = site.submit()
    visitor.may_fail = True
    page = visitor.open("/jobs")
    page.route("**/events/stream*", lambda route: route.abort())
    page.goto(f"/jobs/{job_id}")
    expect(page.locator("#fresh")).to_have_attribute("data-state", "polling")
    site.player.play(until=StepKind.RECOVER, batches=3)
    expect(page.locator("#tiles .tile")).to_have_count(10)


def test_a_failure_appears_with_its_hint(visit: Opener, site: Site) -> None:
    job_id = site.submit()
    page = job_page(visit, job_id)
    site.player.play(until=StepKind.RECOVER, batches=3)
    site.player.fail(ErrorReport(code="nan_loss", message="The loss is not finite.", hint="Lower the learning rate."))
    expect(page.locator(".failure")).to_contain_text("Lower the learning rate.")
    expect(page.locator('[data-stage="recover"]')).to_have_class("stage failed")


def test_each_kind_of_failure_offers_its_remedy(visit: Opener, site: Site) -> None:
    wide, telephone = visit("/jobs"), visit("/jobs", viewport={"width": 390, "height": 844})
    for name, address in site.failures().items():
        for page in (wide, telephone):
            page.goto(address)
            card = page.locator(".failure")
            expect(card.get_by_role("heading")).to_be_in_viewport()
            expect(card.get_by_role("button", name="Try again")).to_be_visible()
        if name == "out of GPU memory":
            expect(telephone.locator(".failure")).to_contain_text("2.5 GB")
            telephone.get_by_role("link", name="New job with batches half as large").click()
            expect(telephone.locator('[name$="/batch"]').first).to_have_value("50")
            wide.locator(".failure").get_by_role("button", name="Try again").click()
            expect(wide.locator(".failure")).to_have_count(0)


def test_a_link_to_a_file_is_copied_and_works_for_a_stranger(visit: Opener, visitor: Visitor, site: Site) -> None:
    job_id = site.submit("To be shared")
    site.player.play()
    page = visit(f"/jobs/{job_id}", permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy a link").first.click()
    expect(page.get_by_role("status").filter(has_text="Link copied")).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")
    stranger = visitor.open("/login", logged_in=False).request.get(link)
    assert stranger.status == 200 and "attachment" in stranger.headers["content-disposition"]


def test_cancelling_asks_first(visit: Opener, site: Site) -> None:
    job_id = site.submit()
    page = job_page(visit, job_id)
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.locator("#cancel").click()
    assert site.job(job_id).state == "queued"
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator("#cancel").click()
    expect(page.locator(".job-sentence .state")).to_contain_text("cancelled")


def test_the_list_follows_its_jobs(visit: Opener, site: Site) -> None:
    job_id = site.submit("Followed")
    page = visit("/jobs")
    expect(page.locator(f"#{job_id} .state")).to_contain_text("queued")
    site.player.play()
    expect(page.locator(f"#{job_id} .state")).to_contain_text("succeeded")
    site.submit("Came later")
    expect(page.locator("tbody tr").first).to_contain_text("Came later")
    expect(page.locator("#fresh")).to_have_text(re.compile(r"^(live|polling), last update \d+ s ago$"))


def test_chosen_jobs_stay_chosen_while_the_list_goes_on(visit: Opener, site: Site) -> None:
    job_id = site.submit("Chosen")
    page = visit("/jobs")
    expect(page.locator("#bulk-bar")).to_be_hidden()
    page.get_by_label("Choose Chosen").check()
    expect(page.locator("#bulk-count")).to_have_text("1 job chosen")
    site.player.play()
    site.submit("Came later")
    page.mouse.move(0, 0)
    page.locator("body").focus()
    expect(page.locator("tbody tr").first).to_contain_text("Came later")
    expect(page.get_by_label("Choose Chosen")).to_be_checked()
    page.locator("#bulk-all").click()
    expect(page.locator("#bulk-count")).to_have_text("2 jobs chosen")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("heading", name="Compare 2 jobs")).to_be_visible()
    assert job_id in page.url


def test_an_image_is_looked_at_large_beside_its_patch(visit: Opener, site: Site) -> None:
    job_id = site.submit()
    site.player.play()
    page = job_page(visit, job_id)
    page.locator("#tiles .tile-image").nth(3).click()
    expect(page.locator("#lightbox")).to_be_visible()
    expect(page.locator("#lightbox-title")).to_have_text("3 · ipc 0")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#lightbox-title")).to_have_text("4 · ipc 0")
    for canvas in ("#lightbox-now", "#lightbox-then"):
        assert page.locator(canvas).evaluate(
            "(c) => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v, i) => i % 4 < 3 && v > 0)"
        )
    page.keyboard.press("Escape")
    expect(page.locator("#lightbox")).to_be_hidden()
    expect(page.locator("#tiles .tile-image").nth(3)).to_be_focused()
