"""The other pages in a real browser: logging in, the form, and what holds for all: no violation, no overflow, no error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from app.pages.assets import MODULES
from tests.app.archives import archive
from tests.pages.site import Port, Site
from tests.pages.visitor import Opener, Visitor

pytestmark = pytest.mark.browser

AXE = MODULES / "axe-core" / "axe.min.js"
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
MISSING = "/jobs/none"
PAGES = (
    "/login",
    "/jobs",
    "/jobs?q=none",
    "/jobs/new",
    "/queue",
    "compare",
    "/sweeps",
    "/sweeps/new",
    "sweep",
    "/datasets",
    "data set",
    "/teachers",
    "/workers",
    "/storage",
    "/settings",
    "/settings/people",
    "/settings/limits",
    "/settings/audit",
    "/docs",
    "running",
    "done",
    "failed",
    "out of GPU memory",
    "crashed engine",
    MISSING,
)


def test_a_one_time_link_logs_in_once(visit: Opener, site: Site) -> None:
    path = site.login_path()
    page = visit(path, logged_in=False)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    page.get_by_role("button", name=re.compile("Log out")).click()
    expect(page.get_by_label("Password")).to_be_visible()


def test_a_used_link_says_so(visit: Opener, visitor: Visitor, site: Site) -> None:
    visitor.may_fail = True  # 401 is what is wanted
    path = site.login_path()
    visit(path, logged_in=False).get_by_role("button", name="Log in").click()
    page = visit(path, logged_in=False)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("used already")


def test_the_demo_starts_with_one_click(visit: Opener, site: Site) -> None:
    page = visit("/jobs")
    page.get_by_role("button", name="Run the demo").click()
    expect(page.get_by_role("heading", name="Demo: handwritten digits")).to_be_visible()


def test_the_form_is_checked_while_one_types(visit: Opener, visitor: Visitor) -> None:
    visitor.may_fail = True  # 422 is what is wanted
    page = visit("/jobs/new")
    ipc = page.get_by_label("Images per class (ipc)")
    ipc.fill("9000")
    expect(page.locator("#f-ipc-errors")).to_contain_text("5000")
    expect(ipc).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#plan")).to_contain_text("There is no plan yet")
    ipc.fill("1000")
    expect(page.locator("#f-ipc-errors")).to_contain_text("training images")
    ipc.fill("2")
    expect(page.locator("#f-ipc-errors")).to_be_empty()
    expect(page.locator("#plan")).to_contain_text("20 images")
    assert ipc.get_attribute("aria-invalid") is None
    assert page.evaluate("document.activeElement.name") == "/ipc"


def test_a_double_click_makes_one_job(visit: Opener, site: Site) -> None:
    page = visit("/jobs/new")
    page.get_by_label("Name", exact=True).fill("Clicked twice")
    page.get_by_role("button", name="Submit").last.dblclick()
    expect(page.get_by_role("heading", name="Clicked twice")).to_be_visible()
    page.goto("/jobs")
    expect(page.locator("tbody tr")).to_have_count(1)


def test_the_form_works_without_scripts(visit: Opener, visitor: Visitor, site: Site) -> None:
    visitor.may_fail = True  # 422 is what is wanted
    page = visit("/jobs/new", java_script_enabled=False)
    path = page.locator('input[name="/dataset:folder/path"]')
    expect(path).to_be_hidden()
    page.get_by_role("radio", name="Folder on the server A folder").check()
    expect(path).to_be_visible()
    path.fill("/nowhere")
    page.get_by_role("button", name="Submit").last.click()
    expect(page.locator("#f-dataset-folder-path-errors")).to_contain_text("not under a folder")
    expect(path).to_have_value("/nowhere")
    page.get_by_label("Digits").check()
    page.get_by_role("button", name="Submit").last.click()
    expect(page.locator(".job-sentence")).to_contain_text("queued")


def test_the_theme_is_chosen_and_remembered(visit: Opener) -> None:
    page = visit("/jobs", color_scheme="light")
    for _ in range(2):
        page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_a_form_that_was_left_is_offered_again(visit: Opener, site: Site) -> None:
    page = visit("/jobs/new")
    page.get_by_label("Name").fill("Half typed")
    page.get_by_label("Images per class (ipc)").fill("3")
    page.get_by_role("button", name="Add a teacher").click()
    expect(page.locator('[name="/teachers/1/network"]')).to_have_count(1)
    page.wait_for_load_state()  # its scripts have run
    page.goto("/jobs")
    page.goto("/jobs/new")
    expect(page.get_by_label("Name")).to_have_value("")
    page.get_by_role("button", name="Go on with it").click()
    expect(page.get_by_label("Name")).to_have_value("Half typed")
    expect(page.get_by_label("Images per class (ipc)")).to_have_value("3")
    expect(page.locator('[name="/teachers/1/network"]')).to_have_count(1)
    page.goto("/jobs/new")
    page.get_by_role("button", name="Discard it").click()
    page.reload()
    expect(page.locator("#draft")).to_be_hidden()


def test_a_form_that_was_submitted_is_not_offered_again(visit: Opener, site: Site) -> None:
    page = visit("/jobs/new")
    page.get_by_label("Name").fill("Submitted")
    page.get_by_role("button", name="Submit").last.click()
    expect(page.get_by_role("heading", name="Submitted")).to_be_visible()
    page.goto("/jobs/new")
    expect(page.locator("#draft")).to_be_hidden()


def test_who_goes_back_after_submitting_finds_the_form_again(visit: Opener, site: Site) -> None:
    page = visit("/jobs/new")
    page.get_by_label("Name").fill("Submitted and seen again")
    page.get_by_role("button", name="Submit").last.click()
    expect(page.get_by_role("heading", name="Submitted and seen again")).to_be_visible()
    page.go_back()
    expect(page.locator("#draft")).to_contain_text("submitted on")
    page.get_by_role("button", name="Go on with it").click()
    expect(page.get_by_label("Name")).to_have_value("Submitted and seen again")


def typed(page: Page, name: str) -> Page:
    """A form in which a name was typed, and kept."""
    page.goto("/jobs/new")
    page.get_by_label("Name").fill(name)
    page.evaluate("new Promise((done) => setTimeout(done, 400))")  # it is kept when 300 ms have passed
    return page


def resumed(page: Page) -> str:
    """The name in the form that is offered."""
    page.goto("/jobs/new")
    page.get_by_role("button", name="Go on with it").click()
    expect(page.get_by_label("Name")).not_to_have_value("")
    return page.get_by_label("Name").input_value()


def test_tabs_keep_a_form_each_and_a_new_one_is_offered_the_last(visit: Opener) -> None:
    first = typed(visit("/jobs"), "First")
    second = typed(first.context.new_page(), "Second")
    assert [resumed(page) for page in (first.context.new_page(), second, first)] == ["Second", "Second", "First"]


def test_a_form_that_was_submitted_leaves_that_of_another_tab(visit: Opener) -> None:
    first = typed(visit("/jobs"), "First")
    second = typed(first.context.new_page(), "Second")
    first.get_by_role("button", name="Submit").last.click()
    expect(first.get_by_role("heading", name="First")).to_be_visible()
    assert [resumed(page) for page in (first.context.new_page(), second)] == ["Second", "Second"]


def test_presets_are_narrowed_down_while_one_chooses(visit: Opener, site: Site) -> None:
    page = visit("/jobs/new")
    page.locator("#all-presets summary").click()
    page.locator("#preset-set").select_option("ImageWoof")
    page.locator("#preset-ipc").select_option("10")
    page.locator("#preset-method").select_option("fadrm+")
    expect(page.locator(".preset-list li:visible")).to_have_count(2)
    expect(page.locator("#preset-count")).to_have_text(re.compile("^2 of"))


def test_everything_is_reached_by_keyboard(visit: Opener, site: Site) -> None:
    site.submit("By keyboard")
    page = visit("/jobs")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    page.locator("#q").focus()
    page.keyboard.type("keyboard")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="By keyboard").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="By keyboard")).to_be_visible()


def settle(page: Page, name: str) -> None:
    """Wait until scripts have drawn what they draw."""
    if name in {"done", "failed", "running"}:
        page.wait_for_selector("#job[data-ready]", state="attached")
        page.wait_for_selector("#tiles .tile")
    if name == "/docs":
        page.wait_for_selector(".swagger-ui .opblock")


OVER = "document.documentElement.scrollWidth - innerWidth"  # px beyond the edge


@dataclass(slots=True)
class Tour:
    """What one walk through all pages found."""

    violations: dict[str, Any] = field(default_factory=dict)  # of accessibility, by page and scheme
    overflows: dict[str, int] = field(default_factory=dict)  # px beyond the edge of a telephone
    complaints: list[str] = field(default_factory=list)  # of the console, and requests that left

    def stop_at(self, page: Page, name: str, address: str) -> None:
        page.set_viewport_size({"width": 1280, "height": 900})
        page.goto(address)
        settle(page, name)
        page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            found = page.evaluate("axe.run({exclude: ['.swagger-ui']}, {resultTypes: ['violations']})")["violations"]
            for one in found:
                self.violations[f"{name} {scheme} {one['id']}"] = [node["html"] for node in one["nodes"]][:3]
        page.set_viewport_size({"width": 390, "height": 844})
        try:  # charts follow the window a frame or more later
            page.wait_for_function(f"{OVER} <= 0", timeout=5000)
        except PlaywrightTimeout:
            self.overflows[name] = page.evaluate(OVER)


@pytest.fixture(scope="module")
def tour(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tour]:
    """One site, one walk: it takes the time of several tests."""
    site, found = Site(tmp_path_factory.mktemp("tour")), Tour()
    port = Port(site)
    port.up()
    visitor = Visitor(browser, port)
    addresses = site.failures() | site.populate()
    ids = [addresses[name].rpartition("/")[2] for name in ("done", "failed", "running")]
    addresses["compare"] = f"/compare?ids={','.join(ids)}"
    addresses["data set"] = f"/datasets/uploads/{site.upload(archive())}"
    addresses["sweep"] = site.sweep()
    page = visitor.open("/jobs")
    page.context.add_init_script(path=AXE)
    for name in PAGES:
        visitor.may_fail = name == MISSING
        found.stop_at(page, name, addresses.get(name, name))
    found.complaints = visitor.wrong
    yield found
    page.context.close()
    port.down()
    site.close()


def test_axe_finds_no_violation_on_any_page_in_light_and_dark(tour: Tour) -> None:
    assert not tour.violations


def test_no_page_is_wider_than_a_telephone(tour: Tour) -> None:
    assert not tour.overflows


def test_no_page_complains_or_asks_anybody_else(tour: Tour) -> None:
    assert not tour.complaints
