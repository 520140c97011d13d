"""Uploads that come piece by piece: they go on where they broke off, and nothing of them is taken twice or believed unseen."""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app import arrivals, confined
from app.arrivals import MEDIA_TYPE, encoded
from app.errors import Conflict
from app.main import create_app
from app.models import Arrival, Upload, utc_now
from tests.app.alone import alone
from tests.app.archives import FLAT, archive
from tests.app.world import Person, World, files_of

URL = "/api/v1/uploads"


def begin(client: TestClient, size_bytes: int, headers: dict[str, str] | None = None, **pairs: str) -> Any:
    metadata = {"Upload-Metadata": encoded({"title": "Insects"} | pairs)}
    return client.post(URL, headers={"Upload-Length": str(size_bytes)} | metadata | (headers or {}))


def send(client: TestClient, url: str, data: bytes, offset: int, **headers: str) -> Any:
    return client.patch(
        url, content=data, headers={"Upload-Offset": str(offset), "Content-Type": MEDIA_TYPE, **headers}
    )


def test_what_is_under_way_counts_as_announced(world: World, owner: Person) -> None:
    settings = world.services.settings.model_copy(update={"max_upload_bytes_per_user": 10_000})
    with TestClient(
        create_app(replace(world.services, settings=settings), background=False), headers=owner.headers
    ) as client:
        first = begin(client, 6_000)
        refused = begin(client, 5_000)
        assert refused.status_code == 429 and "and 6,000 under way; with 5,000 more" in refused.json()["detail"]
        assert begin(client, 5_000, world.person("other").headers).status_code == 201
        client.delete(first.headers["location"])
        assert begin(client, 5_000).status_code == 201


def test_pieces_become_a_data_set_and_a_second_finish_answers_the_same(client: TestClient, world: World) -> None:
    data = archive()
    made = begin(client, len(data))
    url = made.headers["location"]
    assert made.status_code == 201 and made.headers["tus-resumable"] == "1.0.0" and made.json()["title"] == "Insects"
    first = send(client, url, data[:700], 0)
    assert first.status_code == 204 and first.headers["upload-offset"] == "700"
    told = client.head(url).headers
    assert (told["upload-offset"], told["upload-length"]) == ("700", str(len(data))) and told[
        "cache-control"
    ] == "no-store"
    assert client.post(f"{url}/finish").status_code == 409
    assert client.get(URL).json()[0]["state"] == "receiving"
    assert send(client, url, data[700:], 700).status_code == 204
    finished = client.post(f"{url}/finish")
    assert finished.status_code == 200 and finished.json()["id"] == hashlib.sha256(data).hexdigest()
    assert client.post(f"{url}/finish").json() == finished.json()
    assert client.get(url).json()["upload_id"] == finished.json()["id"] and client.get(URL).json() == []
    assert world.count(Upload) == 1 and not any("part-" in name for name in files_of(world.services.store.uploads))


def test_a_piece_goes_on_where_the_last_one_ended_and_nowhere_else(client: TestClient) -> None:
    url = begin(client, 100).headers["location"]
    assert send(client, url, b"x" * 40, 0).status_code == 204
    for offset in (0, 39, 41):
        refused = send(client, url, b"y", offset)
        assert refused.status_code == 409 and refused.headers["upload-offset"] == "40"
    assert send(client, url, b"x" * 61, 40).status_code == 413
    assert client.head(url).headers["upload-offset"] == "40"


def test_a_damaged_piece_leaves_nothing(client: TestClient) -> None:
    url = begin(client, 100).headers["location"]
    right = "sha256 " + b64encode(hashlib.sha256(b"a" * 50).digest()).decode()
    assert send(client, url, b"b" * 50, 0, **{"Upload-Checksum": right}).status_code == 460
    assert client.head(url).headers["upload-offset"] == "0"
    assert send(client, url, b"a" * 50, 0, **{"Upload-Checksum": right}).status_code == 204
    assert send(client, url, b"a", 50, **{"Upload-Checksum": "crc32 AA=="}).status_code == 422


def test_what_came_before_the_sender_went_away_is_kept(client: TestClient, world: World, owner: Person) -> None:
    made = begin(client, 100).json()

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 30
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        alone(arrivals.append(world.services, owner.user, made["id"], offset=0, body=body(), checksum=None))
    assert arrivals.get(world.services, owner.user, made["id"]).offset == 30


def test_two_pieces_at_once_are_one_and_a_refusal(client: TestClient, world: World, owner: Person) -> None:
    made = begin(client, 100).json()

    async def both() -> list[Any]:
        async def body() -> AsyncIterator[bytes]:
            yield b"x" * 10
            await asyncio.sleep(0.2)

        calls = (
            arrivals.append(world.services, owner.user, made["id"], offset=0, body=body(), checksum=None)
            for _ in range(2)
        )
        return await asyncio.gather(*calls, return_exceptions=True)

    results = alone(both())
    assert sorted(type(result).__name__ for result in results) == ["ArrivalOut", Conflict.__name__]
    assert arrivals.get(world.services, owner.user, made["id"]).offset == 10


def test_what_is_no_data_set_stays_refused_with_its_reason(client: TestClient, world: World) -> None:
    data = archive(more={"ant/bad.png": b""})
    url = begin(client, len(data)).headers["location"]
    send(client, url, data, 0)
    refused = client.post(f"{url}/finish")
    assert refused.status_code == 422 and refused.json()["details"]["files"][0]["name"] == "ant/bad.png"
    assert client.post(f"{url}/finish").json()["detail"] == refused.json()["detail"]
    found = client.get(url).json()
    assert found["state"] == "refused" and found["problem"]["details"]["files"]
    assert not files_of(world.services.store.uploads)
    url = begin(client, len(data), skip_bad="true").headers["location"]
    send(client, url, data, 0)
    assert client.post(f"{url}/finish").json()["skipped"] == 1


def test_an_upload_under_way_is_its_owners_alone(client: TestClient, world: World) -> None:
    url = begin(client, 100).headers["location"]
    other = world.person("other").headers
    assert client.get(url, headers=other).status_code == 404 and client.get(URL, headers=other).json() == []
    assert client.delete(url, headers=other).status_code == 404
    assert send(client, url, b"x", 0, **other).status_code == 404
    assert client.delete(url).status_code == 204 and client.get(url).status_code == 404


def test_only_so_many_come_at_once_and_only_in_our_version(client: TestClient, world: World) -> None:
    for _ in range(4):
        assert begin(client, 100).status_code == 201
    refused = begin(client, 100)
    assert refused.status_code == 429 and refused.headers["retry-after"] and "limit is 4" in refused.json()["detail"]
    assert begin(client, 100, world.person("other").headers).status_code == 201
    assert begin(client, 100, {"Tus-Resumable": "0.2.2"}).status_code == 412
    assert begin(client, 5 * 2**30).status_code == 413


def test_what_nobody_goes_on_with_is_forgotten(client: TestClient, world: World) -> None:
    url = begin(client, 100).headers["location"]
    send(client, url, b"x", 0)
    kept = begin(client, 100).json()["id"]
    with world.services.database.write() as session:
        session.get_one(Arrival, url.rpartition("/")[2]).expires_at = utc_now() - timedelta(seconds=1)
    assert client.get(url).status_code == 404
    assert arrivals.clean(world.services) == 1 and world.count(Arrival) == 1
    assert not files_of(world.services.store.uploads)
    assert client.get(f"{URL}/{kept}").status_code == 200


def test_a_full_disk_while_unpacking_keeps_the_bytes(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, app: FastAPI
) -> None:
    from app import confined

    data = archive(*FLAT)
    url = begin(client, len(data)).headers["location"]
    send(client, url, data, 0)

    def is_full(*_: Any, **__: Any) -> None:
        raise confined.full()

    with monkeypatch.context() as patch:
        patch.setattr(confined, "unpack", is_full)
        assert client.post(f"{url}/finish").status_code == 503
    assert client.get(url).json()["state"] == "received"
    assert client.post(f"{url}/finish").status_code == 200


def test_archives_are_read_few_at_a_time(world: World, owner: Person) -> None:
    app = create_app(replace(world.services), background=False)
    with TestClient(app, headers=owner.headers) as client:
        data = archive()
        url = begin(client, len(data)).headers["location"]
        send(client, url, data, 0)
        for _ in range(world.services.settings.max_unpacking_at_once):
            app.state.unpacking.acquire()
        refused = client.post(f"{url}/finish")
        assert refused.status_code == 503 and refused.headers["retry-after"] == "5"


def test_how_far_an_upload_has_come_is_told_on_every_database(any_world: World) -> None:
    owner = any_world.person("owner")
    with TestClient(create_app(any_world.services, background=False), headers=owner.headers) as client:
        url = begin(client, 100).headers["location"]
        assert send(client, url, b"x" * 40, 0).headers["upload-expires"].endswith(" GMT")
        told = client.get(url)
        assert client.head(url).headers["upload-offset"] == "40"
    assert told.status_code == 200 and told.json()["expires_at"].endswith("Z")


def test_one_that_is_cancelled_while_it_is_read_becomes_nothing(
    client: TestClient, world: World, owner: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, unpack = whole(client), confined.unpack

    def cancelled_meanwhile(*given: Any, **more: Any) -> Any:
        found = unpack(*given, **more)
        arrivals.cancel(world.services, owner.user, url.rpartition("/")[2])
        return found

    monkeypatch.setattr(confined, "unpack", cancelled_meanwhile)
    told = client.post(f"{url}/finish")
    assert told.status_code == 404 and "cancelled" in told.json()["detail"]
    assert world.count(Upload) == 0 and not files_of(world.services.store.uploads)


def test_one_that_another_request_has_just_finished_answers_the_same(
    client: TestClient, world: World, owner: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, get = whole(client), arrivals.get

    def finished_meanwhile(*given: Any) -> Any:
        found = get(*given)
        monkeypatch.setattr(arrivals, "get", get)
        assert arrivals.finish(*given)[1]
        return found

    monkeypatch.setattr(arrivals, "get", finished_meanwhile)
    made, is_new = arrivals.finish(world.services, owner.user, url.rpartition("/")[2])
    assert not is_new and client.get(url).json()["upload_id"] == made.id


def test_a_checksum_of_nothing_is_none(client: TestClient) -> None:
    url = begin(client, 5).headers["location"]
    assert send(client, url, b"12345", 0, **{"Upload-Checksum": "sha256"}).status_code == 422
    assert client.get(url).json()["offset"] == 0


def whole(client: TestClient) -> str:
    """The address of one whose bytes are all here."""
    data = archive()
    url: str = begin(client, len(data)).headers["location"]
    assert send(client, url, data, 0).status_code == 204
    return url
