"""Somebody with a browser, who tolerates no error and no foreign address."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, Request

from tests.pages.site import Port

PATIENCE_MS = 60_000  # on a busy machine; nothing waits longer than it must
Opener = Callable[..., Page]


class Visitor:
    """Opens pages, and notes what should not be: errors in the console, requests to anybody else."""

    def __init__(self, browser: Browser, port: Port) -> None:
        self.browser, self.port = browser, port
        self.wrong: list[str] = []
        self.may_fail = False  # while the server is down, requests fail

    def open(self, path: str, *, logged_in: bool = True, **options: Any) -> Page:
        context = self.browser.new_context(base_url=self.port.url, **options)
        context.set_default_timeout(PATIENCE_MS)
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
