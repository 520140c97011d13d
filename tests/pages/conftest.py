"""Fixtures: a site, a client of it, a port of it, and a browser that tolerates no error and no foreign address."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, Request, sync_playwright
from starlette.testclient import TestClient

from app.middleware import COOKIE
from tests.pages.chromium import chromium, launch
from tests.pages.site import Port, Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.close()


@pytest.fixture
def client(site: Site) -> Iterator[TestClient]:
    """Logged in, as a browser without scripts is."""
    with TestClient(site.app, base_url="http://127.0.0.1", headers={"Accept": "text/html"}) as found:
        found.cookies.set(COOKIE, site.cookie())
        yield found


@pytest.fixture
def port(site: Site) -> Iterator[Port]:
    found = Port(site)
    found.up()
    yield found
    found.down()


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as found:
        yield found


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    if chromium() is None:
        pytest.skip("there is no chromium here")
    found = launch(playwright)
    yield found
    found.close()


class Visitor:
    """Opens pages, and notes what should not be: errors in the console, requests to anybody else."""

    def __init__(self, browser: Browser, port: Port) -> None:
        self.browser, self.port = browser, port
        self.wrong: list[str] = []
        self.may_fail = False  # while the server is down, requests fail

    def open(self, path: str, *, logged_in: bool = True, **options: Any) -> Page:
        context = self.browser.new_context(base_url=self.port.url, **options)
        context.set_default_timeout(8000)
        if logged_in:
            context.add_cookies([self.port.cookie])  # type: ignore[list-item]
        page = context.new_page()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.wrong.append(f"{page.url}: {error}"))
        page.on("request", self._request)
        page.goto(path)
        return page

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not self.may_fail:
            self.wrong.append(f"{message.text} at {message.location}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self.port.url, "data:", "blob:")):
            self.wrong.append(f"a request left for {request.url}")


@pytest.fixture
def visitor(browser: Browser, port: Port) -> Iterator[Visitor]:
    found = Visitor(browser, port)
    yield found
    for context in browser.contexts:
        context.close()
    assert not found.wrong


Opener = Callable[..., Page]


@pytest.fixture
def visit(visitor: Visitor) -> Opener:
    """Open a page of the site in a context of its own."""
    return visitor.open
