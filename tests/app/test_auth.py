"""Logging in, tokens, and what a page of another site cannot do."""

from __future__ import annotations

import dataclasses
import re
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import select, update

from app import auth
from app.db import BUSY_TIMEOUT_MS
from app.main import create_app, hosts, server
from app.middleware import COOKIE
from app.models import Token, User, utc_now
from app.settings import Settings
from tests.app.world import World, spec_body

JSON = {"spec": spec_body()}


def link(world: World, name: str = "owner") -> str:
    person = world.person(name)
    with world.services.database.write() as session:
        return auth.login_link(session, person.user)


def log_in(browser: TestClient, world: World) -> str:
    """Log a browser in; what its pages must send."""
    assert browser.post("/login", data={"token": link(world)}).status_code == 303
    [csrf] = re.findall(r'name="csrf-token" content="([0-9a-f]+)"', browser.get("/workers").text)
    return str(csrf)


def test_the_first_administrator_is_made_once(world: World) -> None:
    with world.services.database.write() as session:
        assert auth.bootstrap(session).id == auth.bootstrap(session).id
    assert world.count(User) == 1


def test_only_the_hash_of_a_token_is_kept(world: World) -> None:
    person = world.person("owner")
    with world.services.database.read() as session:
        [row] = session.scalars(select(Token)).all()
    assert person.token.startswith("fadrm_") and len(person.token) == 6 + 43
    assert row.sha256 == auth.digest_of(person.token)
    assert all(person.token not in str(value) for value in vars(row).values())


def test_a_link_lets_a_browser_in_once(anonymous: TestClient, world: World) -> None:
    token = link(world)
    shown = anonymous.get(f"/login?token={token}")
    assert shown.status_code == 200 and token in shown.text
    assert anonymous.post("/login", data={"token": token}).status_code == 303
    assert anonymous.get("/api/v1/me").json()["name"] == "owner"
    again = anonymous.post("/login", data={"token": token})
    assert again.status_code == 401 and "used already" in again.text


def test_of_many_who_use_a_link_at_once_one_gets_in(any_world: World) -> None:
    token = link(any_world)

    def enter(_: int) -> bool:
        with any_world.services.database.write() as session:
            return auth.log_in(session, token) is not None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(enter, range(8))) == 1


def test_the_cookie_is_kept_from_scripts_and_other_sites(world: World) -> None:
    with TestClient(create_app(world.services, background=False), "https://testserver") as browser:
        answer = browser.post("/login", data={"token": link(world)}, follow_redirects=False)
    cookie = answer.headers["set-cookie"].lower()
    assert {"httponly", "samesite=lax", "secure", "path=/"} <= {part.strip() for part in cookie.split(";")}
    assert cookie.startswith("__host-") and "domain" not in cookie
    assert answer.headers["strict-transport-security"].startswith("max-age=")


def test_behind_a_proxy_with_tls_the_public_address_decides_on_the_cookie(world: World) -> None:
    settings = world.services.settings.model_copy(update={"public_url": "https://fadrm.lab.example"})
    services = dataclasses.replace(world.services, settings=settings)
    with TestClient(create_app(services, background=False), "http://fadrm.lab.example", follow_redirects=False) as one:
        answer = one.post("/login", data={"token": link(world)})
    assert "__Host-" in answer.headers["set-cookie"] and "Secure" in answer.headers["set-cookie"]


def test_logging_in_anew_ends_the_session_before(anonymous: TestClient, world: World) -> None:
    log_in(anonymous, world)
    old = anonymous.cookies[COOKIE]
    log_in(anonymous, world)
    assert anonymous.get("/api/v1/me").status_code == 200
    anonymous.cookies.clear()
    anonymous.cookies.set(COOKIE, old)
    assert anonymous.get("/api/v1/me").status_code == 401


def test_an_api_token_typed_by_hand_lets_in_until_it_is_revoked(anonymous: TestClient, world: World) -> None:
    person = world.person("owner")
    assert anonymous.post("/login", data={"token": f" {person.token} "}).status_code == 303
    assert anonymous.get("/api/v1/me").status_code == 200
    [token] = anonymous.get("/api/v1/tokens").json()
    with world.services.database.write() as session:
        auth.revoke(session, person.user, token["id"])
    assert anonymous.get("/api/v1/me").status_code == 401


@pytest.mark.parametrize("wanted", ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "/a\nb"])
def test_a_login_leads_to_our_own_pages_only(anonymous: TestClient, world: World, wanted: str) -> None:
    answer = anonymous.post("/login", data={"token": link(world), "next": wanted})
    assert answer.headers["location"] == "/"


def test_a_login_leads_back_to_where_one_was_going(anonymous: TestClient, world: World) -> None:
    sent_away = anonymous.get("/jobs?state=failed")
    assert sent_away.status_code == 303 and sent_away.headers["location"] == "/login?next=/jobs%3Fstate%3Dfailed"
    answer = anonymous.post("/login", data={"token": link(world), "next": "/jobs?state=failed"})
    assert answer.headers["location"] == "/jobs?state=failed"


def test_wrong_tokens_are_throttled(anonymous: TestClient) -> None:
    answers = [anonymous.post("/login", data={"token": "fadrm_wrong"}).status_code for _ in range(12)]
    assert answers == [401] * 10 + [429] * 2


def test_logging_out_ends_the_session(anonymous: TestClient, world: World) -> None:
    csrf = log_in(anonymous, world)
    cookie = anonymous.cookies[COOKIE]
    assert anonymous.post("/logout", data={"csrf_token": csrf}).status_code == 303
    anonymous.cookies.set(COOKIE, cookie)
    assert anonymous.get("/api/v1/me").status_code == 401


def test_a_browser_must_send_the_pages_token(anonymous: TestClient, world: World) -> None:
    csrf = log_in(anonymous, world)
    assert anonymous.post("/api/v1/jobs", json=JSON).status_code == 403
    assert anonymous.post("/api/v1/jobs", json=JSON, headers={"X-CSRF-Token": "0" * 64}).status_code == 403
    odd = [(b"X-CSRF-Token", "é".encode())]
    assert anonymous.post("/api/v1/jobs", json=JSON, headers=odd).status_code == 403
    assert anonymous.post("/api/v1/jobs", json=JSON, headers={"X-CSRF-Token": csrf}).status_code == 201
    assert anonymous.delete("/api/v1/tokens/tok_x").status_code == 403


def test_the_token_of_another_session_does_not_do(anonymous: TestClient, world: World) -> None:
    other = log_in(anonymous, world)
    anonymous.cookies.clear()
    log_in(anonymous, world)
    assert anonymous.post("/api/v1/jobs", json=JSON, headers={"X-CSRF-Token": other}).status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://testserver"}, 201),
        ({"Origin": "http://testserver"}, 201),
    ],
)
def test_a_page_of_another_site_changes_nothing(
    anonymous: TestClient, world: World, headers: dict[str, str], status: int
) -> None:
    csrf = log_in(anonymous, world)
    answer = anonymous.post("/api/v1/jobs", json=JSON, headers=headers | {"X-CSRF-Token": csrf})
    assert answer.status_code == status


def test_a_page_of_another_site_does_not_log_in(anonymous: TestClient, world: World) -> None:
    answer = anonymous.post("/login", data={"token": link(world)}, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403


def test_only_known_names_are_answered(client: TestClient) -> None:
    assert client.get("/api/v1/me", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 400
    refused = client.get("/jobs", headers={"Host": "EVIL.example:80", "Accept": "text/html"})
    assert refused.status_code == 400 and "evil.example" in refused.text and "FADRM_HOSTS" in refused.text


@pytest.mark.parametrize("host", ["", "[", "]", "[::1", "127.0.0.1.evil.example", "testserver@evil.example", "evil]"])
def test_what_is_no_name_is_refused_as_one(client: TestClient, host: str) -> None:
    assert client.get("/api/v1/me", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["testserver:8080", "127.0.0.1", "TestServer"])
def test_a_name_of_this_server_is_answered_on_any_port(client: TestClient, host: str) -> None:
    assert client.get("/api/v1/me", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("public_url", "name"),
    [
        ("https://fadrm.lab.example/", "fadrm.lab.example"),
        ("http://box:8000", "box"),
        ("http://[fd00::1]:80", "[fd00::1]"),
    ],
)
def test_the_public_address_is_a_known_name(world: World, public_url: str, name: str) -> None:
    assert hosts(world.services.settings.model_copy(update={"public_url": public_url}))[-1] == name


def test_a_token_is_shown_once_and_dies_when_revoked(client: TestClient, world: World) -> None:
    made = client.post("/api/v1/tokens", json={"name": "laptop", "days": 1}).json()
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert client.get("/api/v1/me", headers=headers).json()["by"] == "api"
    listed = client.get("/api/v1/tokens").text
    assert made["id"] in listed and made["token"] not in listed
    assert client.delete(f"/api/v1/tokens/{made['id']}").status_code == 204
    assert client.get("/api/v1/me", headers=headers).status_code == 401
    assert client.delete(f"/api/v1/tokens/{made['id']}").status_code == 404


def test_nobody_revokes_the_token_of_another(client: TestClient, world: World) -> None:
    made = client.post("/api/v1/tokens", json={"name": "laptop"}).json()
    other = world.person("admin")
    assert client.delete(f"/api/v1/tokens/{made['id']}", headers=other.headers).status_code == 404


@pytest.mark.parametrize(
    ("kind", "values", "good"),
    [
        ("api", {}, True),
        ("api", {"expires_at": utc_now() - timedelta(seconds=1)}, False),
        ("api", {"revoked_at": utc_now()}, False),
        ("session", {}, True),
        ("session", {"last_used_at": utc_now() - timedelta(hours=13)}, False),
        ("session", {"created_at": utc_now() - timedelta(hours=13)}, False),
    ],
)
def test_tokens_end(world: World, kind: str, values: dict[str, Any], good: bool) -> None:
    person = world.person("owner")
    with world.services.database.write() as session:
        token, plain = auth.new_token(session, person.user, kind, "t", timedelta(days=1))
        if values:
            session.execute(update(Token).where(Token.id == token.id).values(**values))
        session.expire_all()
        assert (auth.identify(session, plain, kind) is not None) == good
        assert auth.still_good(session, auth.Identity(user=person.user, token=token)) == good
        assert auth.identify(session, plain, "login") is None


def test_the_use_of_a_token_is_noted_now_and_then(client: TestClient, world: World) -> None:
    client.get("/api/v1/me")
    [first] = client.get("/api/v1/tokens").json()
    [second] = client.get("/api/v1/tokens").json()
    assert first["last_used_at"] == second["last_used_at"] is not None


@pytest.mark.parametrize("public_url", ["", "https://fadrm.example"])
def test_only_a_server_behind_a_proxy_believes_what_address_a_request_names(world: World, public_url: str) -> None:
    settings = world.services.settings.model_copy(update={"public_url": public_url})
    app = create_app(dataclasses.replace(world.services, settings=settings), background=False)
    assert server(app, host="127.0.0.1", port=0).config.proxy_headers == bool(public_url)


def test_who_only_reads_does_not_wait_for_who_writes(client: TestClient, world: World) -> None:
    with world.services.database.write():  # nobody else can write meanwhile, and the token's use is to be noted
        began = time.monotonic()
        assert {client.get("/api/v1/me").status_code for _ in range(3)} == {200}
        took_s = time.monotonic() - began
    assert took_s < BUSY_TIMEOUT_MS / 1000 / 2


def test_a_viewer_looks_and_changes_nothing(client: TestClient, world: World) -> None:
    viewer = world.person("viewer", "viewer")
    assert client.get("/api/v1/jobs", headers=viewer.headers).status_code == 200
    assert client.post("/api/v1/jobs/plan", json=JSON, headers=viewer.headers).status_code == 200
    assert client.post("/api/v1/jobs", json=JSON, headers=viewer.headers).status_code == 403


def test_the_secret_is_made_once_and_readable_by_nobody_else(world: World) -> None:
    config = world.services.settings
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: auth.load_secret(config), range(16)))
    assert len(made) == 1 and len(made.pop()) == 64
    assert stat.S_IMODE((config.home / "secret").stat().st_mode) == 0o600
    assert auth.load_secret(config.model_copy(update={"secret": SecretStr("given")})) == b"given"


def test_settings_do_not_show_the_secret() -> None:
    assert "swordfish" not in repr(Settings(secret=SecretStr("swordfish")))


def test_every_answer_has_its_security_headers(client: TestClient) -> None:
    for path in ("/healthz", "/login", "/jobs", "/api/v1/me", "/nothing"):
        headers = client.get(path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer", path
