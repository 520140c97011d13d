"""Links that hand out one file without a login: exactly that file, for exactly so long, as long as their maker may."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from app import links
from app.models import AuditEvent, User, utc_now
from tests.app.test_outcome_api import ZIP, finished
from tests.app.world import World

__all__ = ["finished"]  # a fixture


def made(client: TestClient, job: dict[str, Any], **wanted: Any) -> Any:
    files = client.get(f"/api/v1/jobs/{job['id']}/artifacts").json()["data"]
    name = next(file["name"] for file in files if file["name"].endswith(".zip"))
    return client.post(f"/api/v1/jobs/{job['id']}/links", json={"name": name} | wanted)


def local(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


@pytest.fixture
def link(client: TestClient, finished: dict[str, Any]) -> str:
    answer = made(client, finished)
    assert answer.status_code == 201
    return local(answer.json()["url"])


@pytest.fixture
def stranger(client: TestClient, link: str) -> TestClient:
    """Somebody with no more than a link."""
    assert link
    client.headers.pop("authorization")
    return client


def test_whoever_has_a_link_has_the_file_whole_or_in_part(stranger: TestClient, link: str) -> None:
    whole = stranger.get(link)
    assert whole.status_code == 200 and whole.content == ZIP and "sandbox" in whole.headers["content-security-policy"]
    part = stranger.get(link, headers={"Range": "bytes=10-19", "If-Range": whole.headers["etag"]})
    assert part.status_code == 206 and part.content == ZIP[10:20]
    assert stranger.head(link).headers["content-length"] == str(len(ZIP))
    assert stranger.get(link, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304


def test_a_link_opens_nothing_else(stranger: TestClient, link: str, finished: dict[str, Any]) -> None:
    assert stranger.get(finished["urls"]["self"]).status_code == 401
    for change in (("expires=", "expires=9"), ("signature=", "signature=0"), ("by=usr", "by=usr0")):
        refused = stranger.get(link.replace(*change))
        assert refused.status_code == 403 and refused.json()["hint"], change
    other = link.replace(link.split("?", maxsplit=1)[0].rpartition("/")[2], "card.md")
    assert stranger.get(other).status_code == 403


def test_a_link_ends(client: TestClient, finished: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    answer = made(client, finished, hours=2).json()
    left = datetime.fromisoformat(answer["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=119) < left <= timedelta(hours=2)
    monkeypatch.setattr(links, "utc_now", lambda: utc_now() + timedelta(hours=2, seconds=1))
    gone = client.get(local(answer["url"]))
    assert gone.status_code == 410 and "expired" in gone.json()["detail"]


def test_a_link_is_no_more_than_its_maker(client: TestClient, world: World, link: str, stranger: TestClient) -> None:
    with world.services.database.write() as session:
        maker = session.get_one(User, link.partition("by=")[2].partition("&")[0])
        maker.disabled_at = utc_now()
    assert stranger.get(link).status_code == 404


def test_a_link_to_a_job_that_was_deleted_leads_nowhere(
    client: TestClient, link: str, finished: dict[str, Any]
) -> None:
    assert client.delete(finished["urls"]["self"]).status_code == 204
    assert client.get(link).status_code == 404


@pytest.mark.parametrize(
    ("wanted", "status", "words"), [({"hours": 1000}, 422, "168"), ({"name": "no"}, 404, "no file")]
)
def test_what_cannot_be_linked_is_said(
    client: TestClient, finished: dict[str, Any], wanted: dict[str, Any], status: int, words: str
) -> None:
    refused = made(client, finished, **wanted)
    assert refused.status_code == status and words in refused.json()["detail"]


def test_who_made_a_link_is_written_down_and_no_signature_is(client: TestClient, world: World, link: str) -> None:
    with world.services.database.read() as session:
        [event] = session.scalars(select(AuditEvent).where(AuditEvent.action == "link.make"))
    assert event.target.startswith("job_") and link.rpartition("=")[2] not in str(event.data)
