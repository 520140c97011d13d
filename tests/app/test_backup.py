"""A backup is tried by restoring it: logins hold, downloads are the same bytes, and unfinished jobs go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from app import cli, services
from app.main import create_app
from app.models import JobState
from app.settings import Settings
from app.storage import backup
from app.sweeper import expire_all
from app.trouble import CannotStart
from tests.app.world import World, files_of, spec_body

BODY = {"spec": spec_body()}


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def made_anew(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of a server that is not there yet, on a database of the same kind as `living`'s."""
    url = request.getfixturevalue("empty_postgres_url") if request.param == "postgres" else ""
    return Settings(home=tmp_path / "anew", database_url=url, hosts=("testserver",))


@pytest.fixture
def living(made_anew: Settings, request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """A server with a finished job, and one that works at its second step."""
    kind = "postgres" if made_anew.database_url else "sqlite"
    url = request.getfixturevalue("postgres_url") if made_anew.database_url else ""
    request.getfixturevalue(f"{kind}_database")
    world = World(services=services.build(Settings(home=tmp_path, database_url=url, hosts=("testserver",))))
    with client_of(world) as client:
        client.post("/api/v1/jobs", json=BODY)
        world.work()
        client.post("/api/v1/jobs", json={"spec": spec_body(seed=1)})
        for _ in range(2):
            lease = world.claim()
            assert lease is not None
            if lease.step.needs:
                break
            world.perform(lease)
    return world


@contextmanager
def client_of(world: World, headers: dict[str, str] | None = None) -> Iterator[TestClient]:
    app = create_app(world.services, background=False)
    with TestClient(app, headers=headers or world.person("owner").headers, follow_redirects=False) as client:
        yield client


def downloads(client: TestClient) -> dict[str, bytes]:
    """Every file of every job, by its address."""
    listed = [client.get(job["urls"]["artifacts"]).json() for job in client.get("/api/v1/jobs").json()["data"]]
    return {file["url"]: client.get(file["url"]).content for files in listed for file in files["data"]}


def test_a_restored_server_has_the_downloads_and_goes_on(living: World, made_anew: Settings, tmp_path: Path) -> None:
    name = "backup.tar" if made_anew.database_url else "backup"
    target, headers = tmp_path / "far" / name, living.person("owner").headers
    with client_of(living) as client:
        before = downloads(client)
    made = backup.backup(living.services.settings, target, with_store=True)
    assert made.steps == len(list(living.services.store.whole_keys())) and [
        path.name for path in (tmp_path / "far").iterdir()
    ] == [name]
    made_anew.home.mkdir()
    assert backup.restore(made_anew, target) == made
    restored = World(services=services.build(made_anew))
    assert files_of(made_anew.store_root) >= {f for f in files_of(living.services.store.root) if f.startswith("steps/")}
    assert (made_anew.home / "secret").read_bytes() == (tmp_path / "secret").read_bytes()
    expire_all(restored.services)
    restored.work()
    with client_of(restored, headers) as client:
        after = downloads(client)
        states = {job["state"] for job in client.get("/api/v1/jobs").json()["data"]}
    assert states == {JobState.SUCCEEDED} and before and before.items() <= after.items() and len(after) > len(before)
    restored.services.close()
    living.services.close()


def test_a_backup_without_the_store_lets_jobs_make_again_what_is_lost(world: World, tmp_path: Path) -> None:
    with client_of(world) as client:
        job = client.post("/api/v1/jobs", json=BODY).json()["id"]
        world.work()
    backup.backup(world.services.settings, tmp_path / "b")
    assert files_of(tmp_path / "b") == {"backup.json", "database.db", "secret"}
    settings = Settings(home=tmp_path / "anew", hosts=("testserver",))
    settings.home.mkdir()
    backup.restore(settings, tmp_path / "b")
    restored = World(services=services.build(settings))
    with client_of(restored, world.person("owner").headers) as client:
        assert client.get(f"/api/v1/jobs/{job}/artifacts").json()["data"] == []
        assert client.post(f"/api/v1/jobs/{job}/retry").status_code == 200
        restored.work()
        assert client.get(f"/api/v1/jobs/{job}/artifacts").json()["ready"]
    restored.services.close()


def spoil_head(folder: Path) -> None:
    (folder / "backup.json").unlink()


def spoil_database(folder: Path) -> None:
    (folder / "database.db").write_bytes(b"short")


def spoil_kind(folder: Path) -> None:
    head = json.loads((folder / "backup.json").read_text())
    (folder / "database.db").rename(folder / "database.dump")
    (folder / "backup.json").write_text(json.dumps(head | {"database": "postgresql"}))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [(spoil_head, "no whole backup"), (spoil_database, "is damaged"), (spoil_kind, "is of postgresql")],
)
def test_what_is_no_whole_backup_restores_nothing(
    world: World, tmp_path: Path, spoil: Callable[[Path], None], told: str
) -> None:
    backup.backup(world.services.settings, tmp_path / "b")
    spoil(tmp_path / "b")
    settings = Settings(home=tmp_path / "anew")
    settings.home.mkdir()
    with pytest.raises(CannotStart, match=told):
        backup.restore(settings, tmp_path / "b")
    assert not files_of(settings.home)


def test_nothing_that_is_there_is_overwritten(world: World, tmp_path: Path) -> None:
    backup.backup(world.services.settings, tmp_path / "b")
    with pytest.raises(CannotStart, match="is there already"):
        backup.backup(world.services.settings, tmp_path / "b")
    with pytest.raises(CannotStart, match="move it away"):
        backup.restore(world.services.settings, tmp_path / "b")


def test_a_backup_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="no database"):
        backup.backup(Settings(home=tmp_path / "nobody"), tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_the_commands_back_up_restore_and_tell(world: World, tmp_path: Path) -> None:
    run = CliRunner().invoke
    with client_of(world) as client:
        client.post("/api/v1/jobs", json=BODY)
        world.work()
    home, anew = ["--home", str(tmp_path)], ["--home", str(tmp_path / "anew")]
    assert "steps" in run(cli.app, ["backup", str(tmp_path / "b"), "--store", *home]).output
    assert "Restored" in run(cli.app, ["restore", str(tmp_path / "b"), *anew]).output
    told = run(cli.app, ["storage", *anew])
    assert told.exit_code == 0 and "Downloads" in told.output and "in reserve" in told.output
    assert json.loads(run(cli.app, ["storage", "--json", *anew]).output)["users"][0]["name"] == "owner"
