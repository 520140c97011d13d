"""Fixtures: a site, a client of it, a port of it, and a browser that tolerates no error and no foreign address."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright, expect, sync_playwright
from starlette.testclient import TestClient

from app.middleware import COOKIE
from tests.pages.chromium import chromium, launch
from tests.pages.site import Port, Site
from tests.pages.visitor import PATIENCE_MS, Opener, Visitor


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
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as found:
        yield found


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    if chromium() is None:
        pytest.skip("there is no chromium here")
    found = launch(playwright)
    yield found
    found.close()


@pytest.fixture
def visitor(browser: Browser, port: Port) -> Iterator[Visitor]:
    found = Visitor(browser, port)
    yield found
    for context in browser.contexts:
        context.close()
    assert not found.wrong


@pytest.fixture
def visit(visitor: Visitor) -> Opener:
    """Open a page of the site in a context of its own."""
    return visitor.open
