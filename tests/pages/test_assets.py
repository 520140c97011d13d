"""What browsers load: only what is named, only what is locked, kept for ever."""

from __future__ import annotations

import json

import pytest
from starlette.testclient import TestClient

from app.pages.assets import ROOT, VENDORED, Vendored, own_files, static_url
from tests.pages.site import Site

LOCK = json.loads((ROOT / "package-lock.json").read_text())["packages"]


@pytest.mark.parametrize("file", VENDORED.values(), ids=VENDORED)
def test_every_library_is_the_one_that_is_locked(file: Vendored) -> None:
    locked = LOCK[f"node_modules/{file.package}"]
    assert file.version == locked["version"]
    assert locked["integrity"].startswith("sha512-")


def test_no_library_is_installed_that_is_not_served() -> None:
    assert set(LOCK[""]["dependencies"]) == {file.package for file in VENDORED.values()}


@pytest.mark.parametrize("file", VENDORED.values(), ids=VENDORED)
def test_every_library_is_served_and_kept_for_ever(client: TestClient, file: Vendored) -> None:
    answer = client.get(file.url)
    assert answer.status_code == 200
    assert "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize("name", own_files())
def test_our_own_files_are_served_to_everybody(site: Site, name: str) -> None:
    with TestClient(site.app, base_url="http://127.0.0.1") as stranger:
        answer = stranger.get(static_url(name))
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] in {"text/css", "text/javascript", "image/svg+xml"}
    assert "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    "path",
    [
        "/static/vendor/uplot@1.6.32/package.json",
        "/static/vendor/axe-core@4.14.1/axe.min.js",
        "/static/vendor/uplot@1.6.31/dist/uPlot.esm.js",
        "/static/vendor/../package.json",
        "/static/000000000000/base.css",
        "/static/x/../../app/main.py",
    ],
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404
