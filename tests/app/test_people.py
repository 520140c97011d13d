"""Accounts: made, invited, changed, disabled; passwords; tokens that may do less; and the log of all that."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from argon2 import PasswordHasher
from fastapi.testclient import TestClient
from sqlalchemy import delete, text, update
from sqlalchemy.exc import DatabaseError

from app import audit, auth, passwords, people
from app.db import Database
from app.errors import Conflict, Unprocessable
from app.main import create_app
from app.middleware import COOKIE
from app.models import AuditEvent, User
from tests.app.world import Person, World, spec_body

GOOD = "gravel-otter-lantern"
OTHER = "walnut bicycle harbour"


@pytest.fixture
def admin(world: World) -> Person:
    return world.person("admin")


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that cost little: what they cost is argon2's own affair."""
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))


def made(client: TestClient, admin: Person, name: str = "mei", **more: Any) -> dict[str, Any]:
    answer = client.post("/api/v1/users", json={"name": name, **more}, headers=admin.headers)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def accept(browser: TestClient, url: str, password: str = GOOD) -> int:
    token = url.partition("token=")[2]
    sent = {"token": token, "password": password, "again": password}
    status: int = browser.post("/invitation", data=sent).status_code
    return status


def enter(browser: TestClient, password: str = GOOD, name: str = "mei") -> int:
    status: int = browser.post("/login", data={"name": name, "password": password}).status_code
    return status


def change(client: TestClient, admin: Person, user: dict[str, Any], **more: Any) -> Any:
    return client.patch(f"/api/v1/users/{user['id']}", json=more, headers=admin.headers)


def actions(world: World) -> list[str]:
    with world.services.database.read() as session:
        return [one.action for one in reversed(audit.events(session, limit=100))]


@pytest.mark.usefixtures("cheap")
def test_who_is_invited_sets_a_password_once_and_logs_in_with_it(anonymous: TestClient, admin: Person) -> None:
    user = made(anonymous, admin)
    url = user["invitation"]["url"]
    assert user["invited"] and not user["has_password"]
    assert "Welcome, mei" in anonymous.get(url.partition("testserver")[2]).text
    assert accept(anonymous, url) == 303
    assert anonymous.get("/api/v1/me").json()["name"] == "mei"
    anonymous.cookies.clear()
    assert accept(anonymous, url) == 401
    assert enter(anonymous) == 303 and anonymous.get("/api/v1/me").json()["by"] == "session"


@pytest.mark.usefixtures("cheap")
def test_a_wrong_name_and_a_wrong_password_read_the_same(anonymous: TestClient, admin: Person, world: World) -> None:
    accept(anonymous, made(anonymous, admin)["invitation"]["url"])
    made(anonymous, admin, "empty")
    anonymous.cookies.clear()
    sent = [{"name": "mei", "password": OTHER}, {"name": "nobody", "password": GOOD}, {"name": "empty", "password": ""}]
    told = [anonymous.post("/login", data=one) for one in sent]
    assert [answer.status_code for answer in told] == [401] * 3
    assert all("nobody of this name with this password" in answer.text for answer in told)
    assert actions(world).count("login.failed") == 3


@pytest.mark.usefixtures("cheap")
def test_an_account_is_throttled_from_every_address_and_others_are_not(world: World) -> None:
    app = create_app(world.services, background=False)
    first, second, third = (TestClient(app, client=(f"10.0.0.{number}", 1)) for number in (1, 2, 3))
    assert [enter(client, OTHER) for client in (first, second) for _ in range(5)] == [401] * 10
    refused = third.post("/login", data={"name": "MEI", "password": GOOD})
    assert refused.status_code == 429 and 0 < int(refused.headers["retry-after"]) <= 61
    assert enter(third, name="somebody else") == 401


@pytest.mark.usefixtures("cheap")
def test_what_no_name_holds_is_left_out_of_one_that_is_typed(any_world: World) -> None:
    admin, typed = any_world.person("admin"), "\u202eRene\u0301\0"  # as some keyboards write it, and some programs
    with TestClient(create_app(any_world.services, background=False), follow_redirects=False) as browser:
        accept(browser, made(browser, admin, "Ren\u00e9")["invitation"]["url"])
        assert browser.post("/login", data={"name": typed, "password": GOOD}).status_code == 303
        assert browser.post("/login", data={"name": "\0", "password": GOOD}).status_code == 401


def test_who_gets_in_is_not_counted(anonymous: TestClient, world: World) -> None:
    person = world.person("owner")
    assert [anonymous.post("/login", data={"token": person.token}).status_code for _ in range(12)] == [303] * 12


@pytest.mark.parametrize(
    "password",
    ["short", "x" * 201, "Password12345!", "aaaaaaaaaaaa", "123456789012", "qwertyuiop12", "me-and-meier-99"],
)
def test_a_password_that_is_easily_found_is_refused_and_not_repeated(password: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        passwords.check(password, "meier")
    assert password not in refused.value.detail and refused.value.errors[0].pointer == "/password"


def test_what_is_kept_of_a_password_is_argon2id() -> None:
    kept = passwords.hashed(GOOD)
    assert kept.startswith("$argon2id$") and GOOD not in kept and kept != passwords.hashed(GOOD)
    assert passwords.matches(GOOD, kept) and not passwords.matches(OTHER, kept)
    assert not passwords.matches("nobody has this password", None)


@pytest.mark.usefixtures("cheap")
def test_another_password_ends_the_other_sessions(anonymous: TestClient, admin: Person) -> None:
    accept(anonymous, made(anonymous, admin)["invitation"]["url"])
    first = anonymous.cookies[COOKIE]
    anonymous.cookies.clear()
    enter(anonymous)
    [csrf] = re.findall(r'name="csrf-token" content="([0-9a-f]+)"', anonymous.get("/settings").text)
    headers = {"X-CSRF-Token": csrf}
    wrong = anonymous.post("/api/v1/me/password", json={"current": OTHER, "new": OTHER}, headers=headers)
    assert wrong.status_code == 403 and wrong.json()["errors"][0]["pointer"] == "/current"
    weak = anonymous.post("/api/v1/me/password", json={"current": GOOD, "new": "password1234"}, headers=headers)
    assert weak.status_code == 422 and weak.json()["errors"][0]["pointer"] == "/new"
    assert len(anonymous.get("/api/v1/sessions").json()) == 2
    changed = anonymous.post("/api/v1/me/password", json={"current": GOOD, "new": OTHER}, headers=headers)
    assert changed.status_code == 204 and anonymous.get("/api/v1/me").status_code == 200
    [left] = anonymous.get("/api/v1/sessions").json()
    assert left["current"] and "testclient" in left["client"]
    anonymous.cookies.clear()
    anonymous.cookies.set(COOKIE, first)
    assert anonymous.get("/api/v1/me").status_code == 401
    anonymous.cookies.clear()
    assert (enter(anonymous), enter(anonymous, OTHER)) == (401, 303)


@pytest.mark.usefixtures("cheap")
def test_who_is_disabled_is_out_at_once_and_comes_back_with_nothing(anonymous: TestClient, admin: Person) -> None:
    user = made(anonymous, admin)
    accept(anonymous, user["invitation"]["url"])
    assert anonymous.get("/api/v1/me").status_code == 200
    assert change(anonymous, admin, user, disabled=True).json()["disabled_at"]
    assert anonymous.get("/api/v1/me").status_code == 401
    assert enter(anonymous) == 401
    refused = anonymous.post(f"/api/v1/users/{user['id']}/invitation", json={}, headers=admin.headers)
    assert refused.status_code == 409
    assert change(anonymous, admin, user, disabled=False).json()["disabled_at"] is None
    assert anonymous.get("/api/v1/me").status_code == 401
    assert enter(anonymous) == 303


def test_the_tokens_of_who_is_disabled_are_refused(client: TestClient, admin: Person, owner: Person) -> None:
    assert client.get("/api/v1/me").status_code == 200
    change(client, admin, {"id": owner.user.id}, disabled=True)
    assert client.get("/api/v1/me").status_code == 401
    change(client, admin, {"id": owner.user.id}, disabled=False)
    assert client.get("/api/v1/me").status_code == 401


@pytest.mark.usefixtures("cheap")
def test_a_reset_ends_the_password_and_gives_a_link_for_another(anonymous: TestClient, admin: Person) -> None:
    user = made(anonymous, admin)
    accept(anonymous, user["invitation"]["url"])
    path = f"/api/v1/users/{user['id']}/invitation"
    url = anonymous.post(path, json={"reset": True}, headers=admin.headers).json()["url"]
    assert anonymous.get("/api/v1/me").status_code == 401 and enter(anonymous) == 401
    assert accept(anonymous, url, "short") == 422
    assert accept(anonymous, url, OTHER) == 303


def test_the_last_administrator_stays(client: TestClient, admin: Person, owner: Person) -> None:
    for last in ({"disabled": True}, {"role": "member"}):
        refused = change(client, admin, {"id": admin.user.id}, **last)
        assert refused.status_code == 409 and "last administrator" in refused.json()["detail"]
    assert change(client, admin, {"id": owner.user.id}, role="admin").json()["role"] == "admin"
    assert change(client, admin, {"id": admin.user.id}, role="member").status_code == 200
    assert client.get("/api/v1/users", headers=admin.headers).status_code == 403


def test_of_two_administrators_who_remove_each_other_at_once_one_stays(any_world: World) -> None:
    with any_world.services.database.write() as session:
        ids = [auth.bootstrap(session).id, auth.add_user(session, "second", "admin").id]

    def demote(user_id: str) -> bool:
        try:
            with any_world.services.database.write() as session:
                people.change(session, None, session.get_one(User, user_id), role="member")
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(demote, ids)) == [False, True]


def test_names_differ_by_more_than_their_case(client: TestClient, admin: Person) -> None:
    made(client, admin, "Mei")
    assert client.post("/api/v1/users", json={"name": "mei"}, headers=admin.headers).status_code == 409
    assert client.post("/api/v1/users", json={"name": "a\tb"}, headers=admin.headers).status_code == 422
    unknown = client.post("/api/v1/users", json={"name": "x", "teams": ["none"]}, headers=admin.headers)
    assert unknown.status_code == 422 and unknown.json()["errors"][0]["pointer"] == "/teams"


def at_once(action: Callable[[str], object], *given: str) -> list[type[BaseException] | None]:
    """What became of each of several that begin together."""
    start = threading.Barrier(len(given))

    def one(name: str) -> object:
        start.wait(10)
        return action(name)

    with ThreadPoolExecutor(len(given)) as pool:
        running = [pool.submit(one, name) for name in given]
    errors = [one.exception() for one in running]
    return [error if error is None else type(error) for error in errors]


def test_of_names_that_come_at_once_and_differ_by_their_case_one_is_taken(any_world: World) -> None:
    database = any_world.services.database
    many = [f"{begin}e{end}" for begin in "mM" for end in "iI"]

    def add(name: str) -> None:
        with database.write() as session:
            people.add(session, None, name)

    def add_team(name: str) -> None:
        with database.write() as session:
            people.add_team(session, None, name)

    for action in (add, add_team):
        became = at_once(action, *many)
        assert sorted(became, key=bool) == [None, Conflict, Conflict, Conflict]
    with database.read() as session:
        assert len(people.everybody(session)) == len(people.teams(session)) == 1


def test_teams_of_one_person_that_are_changed_at_once_are_those_of_the_last(any_world: World) -> None:
    database, person = any_world.services.database, any_world.person("owner")
    with database.write() as session:
        for name in ("speech", "vision"):
            people.add_team(session, None, name)

    def join(names: str) -> None:
        with database.write() as session:
            people.change(session, None, people.person(session, person.user.id).user, teams=names.split())

    assert at_once(join, *["speech", "speech vision"] * 3) == [None] * 6
    with database.read() as session:
        assert people.teams_of(session, person.user) in (["speech"], ["speech", "vision"])


def test_a_team_that_is_removed_while_somebody_joins_it_is_gone(any_world: World) -> None:
    database, person = any_world.services.database, any_world.person("owner")
    with database.write() as session:
        people.add_team(session, None, "vision")

    def act(name: str) -> None:
        with database.write() as session:
            if name == "join":
                people.change(session, None, people.person(session, person.user.id).user, teams=["vision"])
            else:
                people.remove_team(session, None, "vision")

    assert at_once(act, "join", "remove") in ([None, None], [Unprocessable, None])
    with database.read() as session:
        assert people.teams(session) == {} and people.teams_of(session, person.user) == []


def test_a_team_whose_name_no_text_has_is_refused(client: TestClient, admin: Person) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"} | admin.headers
    for path in ("/settings/teams", "/settings/teams/remove"):
        assert client.post(path, content=b"name=a%00b", headers=form).status_code == 422


def test_teams_are_made_joined_and_removed(client: TestClient, admin: Person, owner: Person) -> None:
    for name in ("vision", "speech"):
        assert client.post("/api/v1/teams", json={"name": name}, headers=admin.headers).status_code == 201
    assert client.post("/api/v1/teams", json={"name": "Vision"}, headers=admin.headers).status_code == 409
    assert change(client, admin, {"id": owner.user.id}, teams=["speech", "vision"]).json()["teams"] == [
        "speech",
        "vision",
    ]
    assert client.get("/api/v1/me").json()["teams"] == ["speech", "vision"]
    assert client.delete("/api/v1/teams/speech", headers=admin.headers).status_code == 204
    assert client.delete("/api/v1/teams/speech", headers=admin.headers).status_code == 404
    listed = client.get("/api/v1/teams", headers=admin.headers).json()
    assert listed == [{"name": "vision", "members": ["owner"]}]


def scoped(world: World, person: Person, *scopes: str) -> dict[str, str]:
    with world.services.database.write() as session:
        _, token = auth.api_token(session, person.user, "scoped", scopes=scopes)
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("scopes", "role", "submits", "administers"),
    [
        (("read",), "viewer", 403, 403),
        (("read", "submit"), "member", 201, 403),
        (("admin",), "admin", 201, 200),
    ],
)
def test_a_token_does_no_more_than_its_scopes(
    client: TestClient, world: World, admin: Person, scopes: tuple[str, ...], role: str, submits: int, administers: int
) -> None:
    headers = scoped(world, admin, *scopes)
    assert client.get("/api/v1/me", headers=headers).json()["role"] == role
    assert client.post("/api/v1/jobs", json={"spec": spec_body()}, headers=headers).status_code == submits
    assert client.get("/api/v1/users", headers=headers).status_code == administers


def test_a_token_does_no_more_than_its_user(client: TestClient, world: World, owner: Person) -> None:
    headers = scoped(world, owner, "admin")
    assert client.get("/api/v1/me", headers=headers).json()["role"] == "member"
    assert client.get("/api/v1/users", headers=headers).status_code == 403


def test_a_token_with_scopes_makes_no_other_and_lets_a_browser_do_no_more(
    anonymous: TestClient, world: World, admin: Person
) -> None:
    headers = scoped(world, admin, "read")
    for path, body in (("tokens", {"name": "x"}), ("me/password", {"new": GOOD})):
        assert anonymous.post(f"/api/v1/{path}", json=body, headers=headers).status_code == 403
    anonymous.post("/login", data={"token": headers["Authorization"].partition(" ")[2]})
    assert anonymous.get("/api/v1/me").json()["role"] == "viewer"
    assert anonymous.get("/settings/people").status_code == 403


def test_a_token_with_scopes_makes_no_account_and_gives_nobody_another_password(
    anonymous: TestClient, world: World, admin: Person, owner: Person
) -> None:
    headers, user = scoped(world, admin, "admin"), f"/users/{owner.user.id}"
    asked: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("POST", "/users", {"name": "second", "role": "admin"}),
        ("PATCH", user, {"role": "admin"}),
        ("POST", f"{user}/invitation", {"reset": True}),
        ("POST", f"/users/{admin.user.id}/invitation", {}),
    )
    for method, path, body in asked:
        assert anonymous.request(method, f"/api/v1{path}", json=body, headers=headers).status_code == 403, path
    person = f"/settings/people/{owner.user.id}"
    for path in ("/settings/people", person, f"{person}/invitation"):
        sent = {"name": "second", "role": "admin"}
        assert anonymous.post(path, data=sent, headers=headers).status_code == 403, path
    with world.services.database.read() as session:
        assert {one.user.name: one.user.role for one in people.everybody(session)} == {
            "admin": "admin",
            "owner": "member",
        }
    assert anonymous.get("/api/v1/me", headers=owner.headers).status_code == 200


def test_a_token_with_scopes_ends_itself_and_nothing_else(anonymous: TestClient, world: World, admin: Person) -> None:
    headers, other = scoped(world, admin, "read"), scoped(world, admin, "admin")
    anonymous.post("/login", data={"token": admin.token})
    [session] = anonymous.get("/api/v1/sessions", headers=headers).json()
    anonymous.cookies.clear()
    newest, own, _oldest = anonymous.get("/api/v1/tokens", headers=headers).json()
    for path in (f"sessions/{session['id']}", f"tokens/{newest['id']}"):
        assert anonymous.delete(f"/api/v1/{path}", headers=headers).status_code == 403
    assert anonymous.delete(f"/api/v1/tokens/{own['id']}", headers=headers).status_code == 204
    assert anonymous.get("/api/v1/me", headers=headers).status_code == 401
    assert anonymous.get("/api/v1/me", headers=other).status_code == 200


def test_a_new_token_reads_and_submits_where_nobody_says_more(client: TestClient) -> None:
    assert client.post("/api/v1/tokens", json={"name": "laptop"}).json()["scopes"] == ["read", "submit"]
    assert client.post("/api/v1/tokens", json={"name": "all", "scopes": ["everything"]}).status_code == 422
    assert client.post("/api/v1/tokens", json={"name": "none", "scopes": []}).status_code == 422


def test_the_audit_log_tells_who_did_what_to_accounts(client: TestClient, admin: Person, owner: Person) -> None:
    user = made(client, admin)
    change(client, admin, user, role="viewer", disabled=True)
    token = client.post("/api/v1/tokens", json={"name": "laptop"}).json()
    client.delete(f"/api/v1/tokens/{token['id']}")
    page = client.get("/api/v1/audit-events?limit=2", headers=admin.headers).json()
    assert [one["action"] for one in page["data"]] == ["token.revoked", "token.created"] and page["has_more"]
    path = f"/api/v1/audit-events?after={page['next_cursor']}&action=user&actor=admin"
    older = client.get(path, headers=admin.headers).json()
    assert [one["action"] for one in older["data"]] == ["user.disabled", "user.role", "user.invited", "user.created"]
    assert older["data"][1]["data"] == {"was": "member", "now": "viewer"}
    assert token["token"] not in client.get("/api/v1/audit-events", headers=admin.headers).text
    assert client.get("/api/v1/audit-events").status_code == 403


def test_the_database_keeps_the_audit_log_as_it_was(any_database: Database) -> None:
    with any_database.write() as session:
        audit.note(session, None, "user.created", "mei")
    for statement in (update(AuditEvent).values(actor="another"), delete(AuditEvent)):
        with pytest.raises(DatabaseError, match="only added"), any_database.write() as session:
            session.execute(statement)
    with any_database.read() as session:
        assert session.scalar(text("SELECT actor FROM audit_events")) == audit.MACHINE


@pytest.mark.usefixtures("cheap")
def test_the_pages_do_what_the_api_does(client: TestClient, admin: Person) -> None:
    client.headers.update(admin.headers)
    assert client.post("/settings/teams", data={"name": "vision"}).status_code == 303
    told = client.post("/settings/people", data={"name": "mei", "role": "member", "team": "vision"}).text
    assert re.search(r"/invitation\?token=[\w-]+", told)
    assert "Give this link to mei" in told
    [user] = [one for one in client.get("/api/v1/users").json() if one["name"] == "mei"]
    path = f"/settings/people/{user['id']}"
    assert client.post(path, data={"role": "viewer"}).status_code == 303
    assert client.post(path, data={"role": "king"}).status_code == 422
    assert client.post(path, data={"action": "disable"}).status_code == 303
    shown = client.get("/settings/people").text
    assert "disabled" in shown and "Enable" in shown
    again = client.post("/settings/people", data={"name": "mei", "role": "member"})
    assert again.status_code == 409 and "There is a user mei already" in again.text
    log = client.get("/settings/audit?action=user").text
    assert "user.disabled" in log and "team.created" not in log
    assert "FADRM_VISIBILITY" in client.get("/settings/limits").text
    shown = client.post("/settings/tokens", data={"name": "laptop", "days": "30", "scope": ["read"]}).text
    assert re.search(r"fadrm_[\w-]{43}", shown)
    bad = client.post("/settings/tokens", data={"name": "", "days": "30"})
    assert bad.status_code == 422
    assert client.post("/settings/password", data={"new": GOOD, "again": OTHER}).status_code == 422


@pytest.mark.parametrize("path", ["/settings/people", "/settings/audit", "/settings/limits"])
def test_only_administrators_see_the_pages_of_administration(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 403
    assert "/settings/people" not in client.get("/settings").text
