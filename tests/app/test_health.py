"""Whether the server says truly how it is."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text, update

from app.api.health import redis_address
from app.models import Worker, utc_now
from fadrm.words import duration
from tests.app.world import World


def set_up(world: World, **changes: object) -> None:
    object.__setattr__(world.services, "settings", world.services.settings.model_copy(update=changes))


def test_a_process_that_answers_lives(anonymous: TestClient, world: World) -> None:
    world.services.database.close()
    assert anonymous.get("/healthz").json() == {"alive": True}


def test_a_server_that_has_everything_is_ready(anonymous: TestClient, world: World) -> None:
    world.worker_online()
    answer = anonymous.get("/readyz")
    assert answer.status_code == 200, answer.text
    assert {name: check["ok"] for name, check in answer.json()["checks"].items()} == dict.fromkeys(
        ("database", "store", "disk", "redis", "workers"), True
    )


def test_what_is_missing_is_named(anonymous: TestClient, world: World) -> None:
    world.worker_online()
    with world.services.database.write() as session:
        session.execute(update(Worker).values(seen_at=utc_now().replace(year=2020)))
        session.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    set_up(world, redis_url="redis://127.0.0.1:1/0")
    world.services.store.root.write_text("a file where a folder should be")
    answer = anonymous.get("/readyz")
    assert answer.status_code == 503 and not answer.json()["ready"]
    assert {name for name, check in answer.json()["checks"].items() if not check["ok"]} == {
        "database",
        "store",
        "redis",
        "workers",
    }
    assert str(world.services.settings.home) not in answer.text


@pytest.mark.parametrize(
    ("celery", "client"),
    [
        ("redis://127.0.0.1:6379/1", "redis://127.0.0.1:6379/1"),
        ("redis+socket:///run/r.sock", "unix:///run/r.sock?db=0"),
        ("redis+socket://app:pw@/run/r.sock?virtual_host=2", "unix://app:pw@/run/r.sock?db=2"),
    ],
)
def test_a_socket_is_named_as_the_client_has_it(celery: str, client: str) -> None:
    assert redis_address(celery) == client


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_times_are_said_in_words(seconds: float, said: str) -> None:
    assert duration(seconds) == said
