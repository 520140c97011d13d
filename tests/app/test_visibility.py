"""Who sees whose work: the same in lists, pages, downloads and streams, in SQL and for one row."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.ids import new_id
from app.models import AuditEvent, Job, Membership, Team, User, Visibility
from app.visibility import chosen, read_teams, sees, visible_to
from tests.app.archives import archive
from tests.app.world import Person, World, chain, spec_body

SWEEP = {"spec": spec_body(), "axes": [{"name": "seed", "path": "/seed", "values": [0, 1]}]}


def team(world: World, name: str, *people: Person) -> None:
    with world.services.database.write() as session:
        made = Team(id=new_id("team"), name=name)
        session.add(made)
        session.flush()
        session.add_all(Membership(team_id=made.id, user_id=person.user.id) for person in people)


def show(client: TestClient, job: dict[str, Any], visibility: str, who: Person | None = None) -> int:
    headers = who.headers if who else {}
    return client.patch(f"/api/v1/jobs/{job['id']}", json={"visibility": visibility}, headers=headers).status_code


@pytest.fixture
def job(client: TestClient) -> dict[str, Any]:
    made: dict[str, Any] = client.post("/api/v1/jobs", json={"spec": spec_body()}).json()
    return made


def test_the_rule_in_sql_and_for_one_row_is_the_same(any_world: World) -> None:
    owner, mate, other = (any_world.person(name) for name in ("owner", "mate", "other"))
    team(any_world, "vision", owner, mate)
    team(any_world, "speech", other)
    people = [owner, mate, other, any_world.person("admin")]
    jobs = [any_world.submit(one, chain(f"{one.user.name}{index}")) for one in people for index in range(3)]
    with any_world.services.database.write() as session:
        for index, row in enumerate(jobs):
            session.get_one(Job, row.id).visibility = list(Visibility)[index % 3]
    mates = read_teams(any_world.services.database)
    with any_world.services.database.read() as session:
        rows = session.scalars(select(Job)).all()
        for person in people:
            found = set(session.scalars(select(Job.id).where(visible_to(person.user, Job))))
            own = mates.get(person.user.id, set())
            assert found == {one.id for one in rows if sees(person.user, own, one.owner_id, one.visibility)}
            expected = {"owner": 3 + 1 + 3, "mate": 3 + 1 + 3, "other": 3 + 3, "admin": 12}
            assert len(found) == expected[person.user.name]


def test_a_new_job_is_seen_by_the_team_where_there_is_one(world: World) -> None:
    owner, mate = world.person("owner"), world.person("mate")
    with world.services.database.read() as session:
        assert chosen(session, owner.user, None, "team") == "private"
        assert chosen(session, owner.user, "team", "all") == "team"
        assert chosen(session, owner.user, None, "all") == "all"
    team(world, "vision", owner, mate)
    with world.services.database.read() as session:
        assert chosen(session, owner.user, None, "team") == "team"


def test_who_submits_says_who_sees_it(client: TestClient, world: World) -> None:
    other = world.person("other")
    made = client.post("/api/v1/jobs", json={"spec": spec_body(), "visibility": "all"}).json()
    assert made["visibility"] == "all"
    assert client.get(f"/api/v1/jobs/{made['id']}", headers=other.headers).status_code == 200
    assert client.post("/api/v1/jobs", json={"spec": spec_body(), "visibility": "world"}).status_code == 422


def test_a_job_that_is_run_again_by_its_owner_is_seen_by_nobody_else_than_before(
    client: TestClient, world: World, job: dict[str, Any]
) -> None:
    other = world.person("other")
    team(world, "vision", world.person("owner"), other)
    assert show(client, job, "private") == 200
    assert client.post(f"/api/v1/jobs/{job['id']}/rerun").json()["visibility"] == "private"
    page = client.post(f"/jobs/{job['id']}/rerun").headers["location"]
    assert client.get(page, headers=other.headers).status_code == 404
    assert show(client, job, "all") == 200
    again = client.post(f"/api/v1/jobs/{job['id']}/rerun", headers=other.headers).json()
    assert again["visibility"] == "team"  # who runs another's has it as one of their own


def test_a_job_that_is_shown_is_seen_and_not_changed_by_others(
    client: TestClient, world: World, job: dict[str, Any]
) -> None:
    other = world.person("other")
    path = f"/api/v1/jobs/{job['id']}"
    assert client.get(path, headers=other.headers).status_code == 404
    assert show(client, job, "all") == 200
    for part in ("", "/events", "/metrics", "/previews", "/results", "/artifacts", "/log", "/spec", "/attempts"):
        assert client.get(path + part, headers=other.headers).status_code == 200, part
    assert client.get("/api/v1/jobs?visibility=all", headers=other.headers).json()["data"][0]["id"] == job["id"]
    assert not client.get("/api/v1/jobs?visibility=private", headers=other.headers).json()["data"]
    for action in ("cancel", "pause", "resume", "retry"):
        refused = client.post(f"{path}/{action}", headers=other.headers)
        assert refused.status_code == 403 and "another user's" in refused.json()["detail"], action
    assert show(client, job, "private", other) == 403
    assert client.post(f"{path}/rerun", headers=other.headers).status_code == 201
    assert show(client, job, "private") == 200
    assert client.get(path, headers=other.headers).status_code == 404


def test_a_team_sees_what_its_people_show_to_it_as_long_as_they_are_in_it(
    client: TestClient, world: World, job: dict[str, Any], owner: Person
) -> None:
    mate, other = world.person("mate"), world.person("other")
    team(world, "vision", owner, mate)
    show(client, job, "team")
    path = f"/api/v1/jobs/{job['id']}"
    assert client.get(path, headers=mate.headers).status_code == 200
    assert client.get(path, headers=other.headers).status_code == 404
    with world.services.database.write() as session:
        session.delete(session.scalars(select(Membership).where(Membership.user_id == mate.user.id)).one())
    assert client.get(path, headers=mate.headers).status_code == 404


def test_the_jobs_of_a_sweep_are_seen_with_it(client: TestClient, world: World) -> None:
    other = world.person("other")
    sweep = client.post("/api/v1/sweeps", json=SWEEP).json()
    cells = [cell["url"] for cell in sweep["cells"]]
    path = f"/api/v1/sweeps/{sweep['id']}"
    assert [client.get(url, headers=other.headers).status_code for url in (path, *cells)] == [404] * 3
    assert client.patch(path, json={"visibility": "all"}).json()["visibility"] == "all"
    assert [client.get(url, headers=other.headers).status_code for url in (path, *cells)] == [200] * 3
    assert client.patch(path, json={"visibility": "team"}, headers=other.headers).status_code == 403
    assert client.post(f"{path}/cancel", headers=other.headers).status_code == 403
    alone = client.patch(cells[0], json={"visibility": "private"})
    assert alone.status_code == 409 and sweep["id"] in alone.json()["hint"]


def test_an_administrator_who_touches_anothers_job_is_written_down(
    client: TestClient, world: World, job: dict[str, Any], owner: Person
) -> None:
    admin = world.person("admin")
    client.post(f"/api/v1/jobs/{job['id']}/pause")
    client.post(f"/api/v1/jobs/{job['id']}/resume", headers=admin.headers)
    show(client, job, "all", admin)
    client.post(f"/api/v1/jobs/{job['id']}/cancel", headers=admin.headers)
    with world.services.database.read() as session:
        told = session.scalars(select(AuditEvent).order_by(AuditEvent.id)).all()
    about = {(one.actor, one.action, one.target) for one in told if one.target == job["id"]}
    assert about == {
        ("admin", "job.resume", job["id"]),
        ("admin", "job.visibility", job["id"]),
        ("admin", "job.change", job["id"]),
        ("admin", "job.cancel", job["id"]),
    }


def test_a_page_shows_who_sees_a_job_and_a_button_changes_it(
    client: TestClient, world: World, job: dict[str, Any]
) -> None:
    other = world.person("other")
    path = f"/jobs/{job['id']}"
    assert "only its owner" in client.get(path).text and "Show to everybody" in client.get(path).text
    assert client.post(f"{path}/visibility", data={"visibility": "all"}).status_code == 303
    seen = client.get(path, headers=other.headers).text
    assert "everybody" in seen and "Show to" not in seen and "/cancel" not in seen
    assert client.post(f"{path}/visibility", data={"visibility": "team"}, headers=other.headers).status_code == 403
    assert job["name"] in client.get("/jobs?visibility=all", headers=other.headers).text


def test_an_upload_is_seen_and_used_by_those_whom_it_is_shown_to_and_who_hold_its_bytes(
    client: TestClient, world: World
) -> None:
    other, zipped = world.person("other"), {"Content-Type": "application/zip"}
    upload = client.post("/api/v1/datasets", content=archive(), headers=zipped).json()
    path = f"/api/v1/datasets/{upload['id']}"
    body = {"spec": spec_body(dataset={"source": "upload", "id": upload["id"], "resolution": 8})}
    assert client.get(path, headers=other.headers).status_code == 404
    refused = client.post("/api/v1/jobs", json=body, headers=other.headers)
    assert refused.status_code == 422 and refused.json()["errors"][0]["pointer"] == "/spec/dataset/id"
    assert client.patch(path, json={"visibility": "all"}, headers=other.headers).status_code == 404
    again = client.post("/api/v1/datasets", content=archive(), headers=zipped | other.headers)
    assert again.status_code == 200 and client.get(path, headers=other.headers).status_code == 200
    assert client.post("/api/v1/jobs", json=body, headers=other.headers).status_code == 201
    assert client.patch(path, json={"visibility": "all"}, headers=other.headers).status_code == 403
    third = world.person("third")
    assert client.get(path, headers=third.headers).status_code == 404
    assert client.patch(path, json={"visibility": "all"}).json()["visibility"] == "all"
    assert client.get(path, headers=third.headers).status_code == 200


def test_users_are_told_apart_by_more_than_their_role(world: World) -> None:
    assert not sees(User(id="usr_a", name="a", role="viewer"), (), "usr_b", "team")
    assert sees(User(id="usr_a", name="a", role="viewer"), {"usr_b"}, "usr_b", "team")
    assert not sees(User(id="usr_a", name="a", role="member"), {"usr_b"}, "usr_b", "private")
