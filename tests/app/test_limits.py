"""Limits on requests: what is over them is refused in words, with the time after which to come again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.errors import TooMany
from app.limits import Rates
from app.main import create_app
from tests.app.world import Person, World, spec_body


def of(world: World, owner: Person, **settings: Any) -> TestClient:
    """A client of a server with other settings."""
    services = replace(world.services, settings=world.services.settings.model_copy(update=settings))
    return TestClient(create_app(services, background=False), headers=owner.headers)


def test_a_bucket_is_emptied_at_once_and_fills_again_with_time() -> None:
    now = [0.0]
    rates = Rates({"reads": 60, "writes": 6}, clock=lambda: now[0])
    for _ in range(6):
        rates.take("ann", "writes")
    with pytest.raises(TooMany) as refused:
        rates.take("ann", "writes")
    assert refused.value.headers == {"Retry-After": "10"}
    rates.take("ann", "reads")
    rates.take("bob", "writes")
    now[0] = 10.0
    rates.take("ann", "writes")
    with pytest.raises(TooMany):
        rates.take("ann", "writes")


def test_requests_over_the_rate_are_told_when_to_come_again(world: World, owner: Person) -> None:
    with of(world, owner, max_writes_per_min=2, max_reads_per_min=3) as client:
        for _ in range(2):
            assert client.post("/api/v1/jobs/plan", json={}).status_code == 422
        refused = client.post("/api/v1/jobs/plan", json={})
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
        assert refused.headers["content-type"] == "application/problem+json" and refused.json()["hint"]
        assert client.post("/api/v1/jobs/plan", json={}, headers=world.person("other").headers).status_code == 422
        assert [client.get("/api/v1/presets").status_code for _ in range(4)] == [200, 200, 200, 429]
        assert client.get("/healthz").status_code == 200


def test_bodies_and_specs_have_a_size(world: World, owner: Person) -> None:
    with of(world, owner, max_body_bytes=20_000, max_spec_bytes=4_000) as client:
        assert client.post("/api/v1/jobs", content=bytes(20_001)).status_code == 413
        names = [f"class {number}" for number in range(600)]
        folder = {"source": "folder", "path": "/nowhere", "classes": names}
        refused = client.post("/api/v1/jobs", json={"spec": spec_body(dataset=folder)})
        assert refused.status_code == 413 and "4,000" in refused.json()["detail"]
        assert client.post("/api/v1/jobs", json={"spec": spec_body()}).status_code == 201


def test_streams_are_counted_by_the_settings(world: World) -> None:
    settings = world.services.settings.model_copy(update={"max_streams_per_user": 7, "max_streams": 9})
    hub = create_app(replace(world.services, settings=settings), background=False).state.hub
    assert (hub.most_per_user, hub.most) == (7, 9)
