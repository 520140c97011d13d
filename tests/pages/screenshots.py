"""Pictures of every page, wide and narrow, light and dark, to be looked at.

`make screenshots`, or `python -m tests.pages.screenshots FOLDER [PAGE ...]`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from engine.presets import DEMO
from tests.app.archives import archive
from tests.pages.chromium import launch
from tests.pages.site import Port, Site

WIDTHS = (1440, 390)
SCHEMES = ("light", "dark")


def stand_still(_page: Page) -> None:
    """Nothing to be done."""


def open_details(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")


def see_source(page: Page) -> None:
    page.locator("#wipe").fill("50")


def see_difference(page: Page) -> None:
    page.locator("#difference").click()


def type_nonsense(page: Page) -> None:
    page.locator('[name="/ipc"]').fill("1000")
    page.wait_for_selector("#no-plan")
    open_details(page)


AFTERWARDS: dict[str, Callable[[Page], None]] = {
    "details": open_details,
    "wipe": see_source,
    "difference": see_difference,
    "refused": type_nonsense,
}


def shoot(browser: Browser, port: Port, pages: dict[str, str], folder: Path) -> None:
    """One file a page, width and scheme."""
    for width in WIDTHS:
        for scheme in SCHEMES:
            context = browser.new_context(
                base_url=port.url,
                color_scheme=scheme,  # type: ignore[arg-type]
                viewport={"width": width, "height": 900},
                device_scale_factor=1 if width > 800 else 2,
            )
            context.add_cookies([port.cookie])  # type: ignore[list-item]
            page = context.new_page()
            for name, path in pages.items():
                page.goto(path)
                if path.startswith("/jobs/job_"):
                    page.wait_for_selector("#job[data-ready]", state="attached")
                AFTERWARDS.get(name.rpartition(" ")[2], stand_still)(page)
                _scroll_through(page)
                page.screenshot(path=folder / f"{name.replace(' ', '-')}-{width}-{scheme}.png", full_page=True)
            context.close()


def _scroll_through(page: Page) -> None:
    """Charts are drawn when they come into view."""
    for y in range(0, page.evaluate("document.body.scrollHeight"), 700):
        page.evaluate(f"scrollTo(0, {y})")
        page.wait_for_timeout(60)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(300)


def addresses(site: Site) -> dict[str, str]:
    """Every page that there is, and the states of some that look differently: name -> path."""
    failures = site.failures()  # before there is anything else that waits
    jobs = site.populate(DEMO)
    second = site.submit("Five images a class", DEMO.model_copy(update={"ipc": 5, "seed": 9}))
    site.player.play()
    ids = f"{jobs['done'].rpartition('/')[2]},{second}"
    site.submit("One more that waits", DEMO.model_copy(update={"seed": 11}))
    fixed = {
        "jobs": "/jobs",
        "new": "/jobs/new",
        "queue": "/queue",
        "compare": f"/compare?ids={ids}",
        "sweeps": "/sweeps",
        "sweep": site.sweep(),
        "sweep form": "/sweeps/new",
        "datasets": "/datasets",
        "data set": f"/datasets/uploads/{site.upload(archive())}",
        "teachers": "/teachers",
        "workers": "/workers",
        "storage": "/storage",
        "settings": "/settings",
        "people": "/settings/people",
        "limits": "/settings/limits",
        "audit": "/settings/audit",
        "docs": "/docs",
        "missing": "/jobs/none",
    }
    more = {f"done {what}": jobs["done"] for what in ("details", "wipe", "difference")} | {"new refused": "/jobs/new"}
    return fixed | jobs | failures | more


def main(folder: Path, wanted: Sequence[str]) -> None:
    """Fill a site, open a browser, look at everything, or at the pages that are named."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        site = Site(Path(home))
        port = Port(site)
        port.up()
        browser = launch(playwright)
        if not wanted:
            empty = {"empty": "/jobs", "no workers": "/workers", "login": "/login?next=/jobs"}
            shoot(browser, port, empty, folder)
        pages = addresses(site)
        shoot(browser, port, {name: path for name, path in pages.items() if not wanted or name in wanted}, folder)
        browser.close()
        port.down()
        site.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
