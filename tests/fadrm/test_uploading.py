"""Sending an archive: it goes on where it broke off, and what the server does not take is told image by image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.models import Arrival, Upload
from fadrm import Client, connection, uploading
from fadrm.errors import Refused, Unreachable
from tests.app.archives import archive
from tests.app.world import Person, World


class Breaking(httpx.BaseTransport):
    """The app in this process, to which the line breaks after so many pieces."""

    def __init__(self, inner: TestClient) -> None:
        self.inner, self.left, self.pieces = inner, 10**6, 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "PATCH":
            if self.pieces == self.left:
                raise httpx.ConnectError("broken", request=request)
            self.pieces += 1
        found = self.inner.request(
            request.method, str(request.url), headers=dict(request.headers), content=request.read()
        )
        return httpx.Response(found.status_code, headers=found.headers, content=found.content)


@pytest.fixture
def line(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Iterator[Breaking]:
    monkeypatch.setattr(uploading, "PIECE", 500)
    monkeypatch.setattr(uploading, "PAUSE_S", 0.0)
    with TestClient(app) as inner:
        yield Breaking(inner)


def test_an_upload_goes_on_in_another_process(line: Breaking, world: World, owner: Person, tmp_path: Path) -> None:
    path = tmp_path / "insects.zip"
    path.write_bytes(archive())
    line.left = 3
    with Client("http://testserver", owner.token, transport=line, patience_s=0) as client, pytest.raises(Unreachable):
        client.upload(path)
    notes = connection.home() / uploading.UPLOADS_FILE
    assert notes.is_file() and notes.is_relative_to(tmp_path), "and not in the home of who runs the tests"
    line.left = 10**6
    told: list[int] = []
    with Client("http://testserver", owner.token, transport=line) as client:
        made = client.upload(path, told=lambda done, _: told.append(done))
    assert made.classes == ["ant", "bee"] and made.title == "insects"
    assert told[0] == 1500 and told[-1] == path.stat().st_size
    assert line.pieces == -(-path.stat().st_size // 500)
    assert world.count(Upload) == world.count(Arrival) == 1


def test_what_is_refused_names_the_images_and_begins_anew(line: Breaking, owner: Person, tmp_path: Path) -> None:
    path = tmp_path / "insects.zip"
    path.write_bytes(archive(more={"ant/bad.png": b""}))
    with Client("http://testserver", owner.token, transport=line) as client:
        with pytest.raises(Refused) as refused:
            client.upload(path)
        assert refused.value.problem.details["files"][0]["name"] == "ant/bad.png"
        assert client.upload(path, skip_bad=True).skipped == 1
