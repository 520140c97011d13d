"""Who may reach what: every route of the app, asked by everybody. One that is not in the table fails: none is added unthought.

A line of the table is: who may, a method, and paths. What the words mean is in `expected`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocketDisconnect

from tests.app.archives import archive
from tests.app.tensor_files import BYTES, weights
from tests.app.world import PNG, Person, World, spec_body

SWEEP = {"spec": spec_body(), "axes": [{"name": "seed", "path": "/seed", "values": [0]}]}
TABLE = """
open     GET   /healthz /readyz /login /invitation /static/vendor/{name:path} /static/{digest}/{name:path}
open     POST  /login /invitation
all      GET   /api/v1/openapi.json /api/v1/jobs /api/v1/compare /api/v1/sweeps /api/v1/presets /api/v1/datasets
all      GET   /api/v1/datasets/preview /api/v1/datasets/preview/sheet /api/v1/uploads /api/v1/system/storage /api/v1/trash
all      GET   /api/v1/workers /api/v1/me /api/v1/tokens /api/v1/sessions /api/v1/teachers
all      GET   / /jobs /jobs/new /compare /queue /sweeps /sweeps/new /datasets /datasets/folder /storage /workers /docs /settings
all      GET   /teachers /api/v1/weights
all      HEAD  /api/v1/openapi.json
all      POST  /logout /api/v1/jobs/plan /api/v1/sweeps/plan /api/v1/tokens /api/v1/me/password /settings/password
all      POST  /settings/tokens
writers  POST  /api/v1/jobs /api/v1/sweeps /api/v1/datasets /api/v1/uploads /jobs/new /jobs/demo /sweeps/new /datasets
writers  POST  /jobs/bulk /teachers /api/v1/weights
sight    GET   /api/v1/jobs/{job_id} /api/v1/jobs/{job_id}/spec /api/v1/jobs/{job_id}/attempts /api/v1/jobs/{job_id}/events
sight    GET   /api/v1/jobs/{job_id}/events/stream /api/v1/stream /api/v1/jobs/{job_id}/metrics /api/v1/previews/{sha256}
sight    GET   /api/v1/jobs/{job_id}/previews /api/v1/jobs/{job_id}/results /api/v1/jobs/{job_id}/artifacts
sight    GET   /api/v1/jobs/{job_id}/artifacts/{name:path} /api/v1/jobs/{job_id}/log /jobs/{job_id} /jobs/{job_id}/parts
sight    GET   /api/v1/sweeps/{sweep_id} /api/v1/sweeps/{sweep_id}/table /sweeps/{sweep_id}
signed   GET   /api/v1/links/{job_id}/{name:path}
copies   POST  /api/v1/jobs/{job_id}/links /api/v1/jobs/{job_id}/exports /jobs/{job_id}/exports
copies   POST  /api/v1/jobs/{job_id}/rerun /jobs/{job_id}/rerun
owner    POST  /api/v1/jobs/{job_id}/cancel /api/v1/jobs/{job_id}/pause /api/v1/jobs/{job_id}/resume /api/v1/jobs/{job_id}/retry
owner    POST  /api/v1/jobs/{job_id}/restore /jobs/{job_id}/cancel /jobs/{job_id}/visibility /jobs/{job_id}/rename
owner    POST  /jobs/{job_id}/pause /jobs/{job_id}/resume /jobs/{job_id}/retry /jobs/{job_id}/delete /jobs/{job_id}/restore
owner    POST  /jobs/{job_id}/keep /queue/{job_id}/rank
owner    POST  /api/v1/sweeps/{sweep_id}/cancel /api/v1/sweeps/{sweep_id}/retry /api/v1/sweeps/{sweep_id}/restore
owner    POST  /sweeps/{sweep_id}/visibility /sweeps/{sweep_id}/cancel /sweeps/{sweep_id}/retry /sweeps/{sweep_id}/delete
owner    POST  /sweeps/{sweep_id}/restore
owner    PATCH /api/v1/jobs/{job_id} /api/v1/sweeps/{sweep_id}
owner    DELETE /api/v1/jobs/{job_id} /api/v1/sweeps/{sweep_id}
sight    GET   /api/v1/datasets/{upload_id} /api/v1/datasets/{upload_id}/sheet /datasets/uploads/{upload_id}
owner    POST  /datasets/uploads/{upload_id}/visibility
owner    PATCH /api/v1/datasets/{upload_id}
owner    DELETE /api/v1/datasets/{upload_id}
sight    GET   /api/v1/weights/{weights_id}
owner    POST  /teachers/{weights_id}/visibility /teachers/{weights_id}/remove
owner    PATCH /api/v1/weights/{weights_id}
owner    DELETE /api/v1/weights/{weights_id}
own      GET   /api/v1/uploads/{arrival_id}
own      PATCH /api/v1/uploads/{arrival_id}
own      POST  /api/v1/uploads/{arrival_id}/finish /settings/tokens/{token_id}/revoke /settings/sessions/{session_id}/end
own      DELETE /api/v1/uploads/{arrival_id} /api/v1/tokens/{token_id} /api/v1/sessions/{session_id}
admin    GET   /metrics /api/v1/users /api/v1/users/{user_id} /api/v1/teams /api/v1/audit-events
admin    GET   /settings/people /settings/audit /settings/limits
admin    POST  /api/v1/system/storage/clean /api/v1/workers/{worker_id}/drain /api/v1/workers/{worker_id}/resume
admin    POST  /api/v1/users /api/v1/users/{user_id}/invitation /api/v1/teams /storage/clean /workers/{worker_id}/drain
admin    POST  /workers/{worker_id}/resume /settings/people /settings/people/{user_id} /settings/teams /settings/teams/remove
admin    POST  /settings/people/{user_id}/invitation /storage/jobs/{job_id}/remove /storage/sweeps/{sweep_id}/remove
admin    PATCH /api/v1/users/{user_id}
admin    DELETE /api/v1/teams/{team}
"""
BODIES = {
    "/api/v1/jobs": {"spec": spec_body()},
    "/api/v1/jobs/plan": {"spec": spec_body()},
    "/api/v1/jobs/{job_id}": {"name": "another"},
    "/api/v1/jobs/{job_id}/links": {"name": "card.md"},
    "/api/v1/jobs/{job_id}/exports": {"form": "parquet"},
    "/api/v1/sweeps": SWEEP,
    "/api/v1/sweeps/plan": SWEEP,
    "/api/v1/sweeps/{sweep_id}": {"visibility": "private"},
    "/api/v1/tokens": {"name": "t"},
    "/api/v1/me/password": {"new": "short"},
    "/api/v1/users": {"name": "t", "teams": ["none"]},
    "/api/v1/users/{user_id}/invitation": {},
    "/api/v1/users/{user_id}": {},
    "/api/v1/teams": {"name": ""},
    "/api/v1/datasets/{upload_id}": {"visibility": "private"},
    "/api/v1/weights/{weights_id}": {"visibility": "private"},
}
HEADERS = {"/api/v1/uploads/{arrival_id}": {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}}
FORMS = {
    "/jobs/{job_id}/exports": {"form": "parquet 1"},
    "/jobs/{job_id}/visibility": {"visibility": "private"},
    "/jobs/{job_id}/rename": {"name": "another"},
    "/sweeps/{sweep_id}/visibility": {"visibility": "private"},
    "/datasets/uploads/{upload_id}/visibility": {"visibility": "private"},
    "/teachers/{weights_id}/visibility": {"visibility": "private"},
    "/jobs/bulk": {"action": "pause"},
    "/queue/{job_id}/rank": {"priority": "0"},
}
REFUSED = {401, 403, 404}
Row = tuple[str, str, str]


def table() -> list[Row]:
    lines = [line.split() for line in TABLE.strip().splitlines()]
    return [(who, method, path) for who, method, *paths in lines for path in paths]


def routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    for route in iter_route_contexts(app.routes):
        assert route.path is not None
        yield from ((method, route.path) for method in route.methods or {"GET"})


def expected(who: str, name: str, reads: bool, shown: bool) -> set[int] | None:
    """The statuses that one of them gets of a route; None: anything but a refusal.

    The job, the sweep and all that is of them are the owner's. shown: they are everybody's to see.
    """
    if who == "signed":  # whoever asks: what lacks its signature is refused
        return {422}
    if name == "nobody":
        return {401}
    hidden = {404} if reads else {403, 404}
    if who == "own":  # there is none of theirs
        return hidden
    if who == "admin":
        return None if name == "admin" else {403}
    if who in {"sight", "owner", "copies"} and name in {"viewer", "other"} and not shown:
        return hidden
    is_refused = (who in {"writers", "copies"} and name == "viewer") or (who == "owner" and name in {"viewer", "other"})
    return {403} if is_refused else None


def test_every_route_is_in_the_table_and_once(app: FastAPI) -> None:
    rows = [(method, path) for _, method, path in table()]
    known = set(rows)
    assert len(known) == len(rows)
    missing = sorted(set(routes(app)) - known)
    assert not missing, "say in TABLE who may reach these"


@pytest.fixture
def places(client: TestClient, world: World) -> dict[str, str]:
    """What the names in paths stand for: a finished job of the owner, and what is of it."""
    sweep = client.post("/api/v1/sweeps", json=SWEEP).json()
    job = client.get(sweep["cells"][0]["url"]).json()
    world.work()
    [sheets] = client.get(job["urls"]["previews"]).json()["data"]
    upload = client.post("/api/v1/datasets", content=archive(), headers={"Content-Type": "application/zip"}).json()
    nothing = dict.fromkeys(("arrival_id", "token_id", "session_id", "worker_id", "team"), "none")
    made = client.post("/api/v1/weights", params={"network": "convnet3_w32"}, content=weights(), headers=BYTES)
    return nothing | {
        "weights_id": made.json()["id"],
        "job_id": job["id"],
        "sweep_id": sweep["id"],
        "sha256": sheets["previews"][0]["sha256"],
        "name:path": "card.md",
        "upload_id": upload["id"],
        "user_id": world.person("owner").user.id,
    }


def ask(client: TestClient, method: str, path: str, places: dict[str, str], who: Person | None) -> int:
    """The status; to be sent to the login is 401 for people."""
    address = path
    for name, value in places.items():
        address = address.replace(f"{{{name}}}", value)
    query = f"?jobs={places['job_id']}" if path == "/api/v1/stream" else ""
    client.headers.pop("authorization", None)
    body = BODIES.get(path) if method in {"POST", "PATCH"} else None
    headers = (who.headers if who else {}) | HEADERS.get(path, {})
    answer = client.request(method, address + query, headers=headers, json=body, data=FORMS.get(path))
    if answer.status_code == 303 and answer.headers["location"].startswith("/login?next="):
        return 401
    status: int = answer.status_code
    return status


def refusals(
    client: TestClient,
    there: set[tuple[str, str]],
    places: dict[str, str],
    people: dict[str, Person | None],
    shown: bool,
) -> Iterator[tuple[str, int, set[int] | None]]:
    """Every answer that is not the expected one. Who may change something is not asked to: that is done last."""
    for who, method, path in table():
        reads = method in {"GET", "HEAD"}
        for name, person in people.items():
            if who == "open" or (method, path) not in there or (not reads and name in {"owner", "admin"}):
                continue
            status = ask(client, method, path, places, person)
            wanted = expected(who, name, reads, shown)
            is_right = status in wanted if wanted is not None else status < 500 and status not in {401, 403}
            if not is_right:
                yield f"{method} {path} by {name}", status, wanted


@pytest.mark.parametrize("shown", [False, True])
def test_everybody_reaches_what_is_theirs_to_reach_and_nothing_else(
    app: FastAPI, client: TestClient, world: World, places: dict[str, str], shown: bool
) -> None:
    people: dict[str, Person | None] = {"nobody": None, "viewer": world.person("viewer", "viewer")}
    people |= {name: world.person(name) for name in ("other", "owner", "admin")}
    if shown:
        shown_too = (f"datasets/{places['upload_id']}", f"weights/{places['weights_id']}")
        for path in (f"sweeps/{places['sweep_id']}", *shown_too):
            assert client.patch(f"/api/v1/{path}", json={"visibility": "all"}).status_code == 200
    assert not list(refusals(client, set(routes(app)), places, people, shown))


@pytest.mark.parametrize("name", ["owner", "admin"])
def test_owners_and_administrators_are_refused_nothing_that_changes_theirs(
    app: FastAPI, client: TestClient, world: World, places: dict[str, str], name: str
) -> None:
    changing = [row for row in table() if row[1] not in {"GET", "HEAD"} and row[0] not in {"open", "own"}]
    for who, method, path in sorted(
        changing, key=lambda row: row[1] == "DELETE" or row[2].endswith(("delete", "remove"))
    ):
        if (method, path) in set(routes(app)) and not (who == "admin" and name == "owner"):
            status = ask(client, method, path, places, world.person(name))
            assert status < 500 and status not in {401, 403}, (method, path)


def closed(app: FastAPI) -> list[tuple[str, str]]:
    """Every operation that asks who one is; a signed address says it, and is refused without its signature."""
    doors = {(method, path) for who, method, path in table() if who in {"open", "signed"}}
    return sorted(set(routes(app)) - doors)


def test_a_wrong_token_is_nobody(app: FastAPI, client: TestClient, places: dict[str, str], owner: Person) -> None:
    nobody = Person(user=owner.user, token=owner.token[:-1] + "?")
    assert {ask(client, method, path, places, nobody) for method, path in closed(app)} == {401}


def test_people_are_sent_to_the_login_and_programs_are_told(app: FastAPI, anonymous: TestClient) -> None:
    for method, path in closed(app):
        answer = anonymous.request(method, path)
        if path.startswith("/api/") or path == "/metrics":
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer", path
        else:
            assert answer.status_code == 303 and answer.headers["location"].startswith("/login"), path


def test_only_posts_patches_and_deletes_change_something(app: FastAPI) -> None:
    assert {method for method, _ in routes(app)} <= {"GET", "HEAD", "POST", "PATCH", "DELETE"}


def test_what_is_mounted_is_behind_the_door_too(app: FastAPI, anonymous: TestClient, world: World) -> None:
    app.router.routes.append(Mount("/files", StaticFiles(directory=world.services.settings.home)))
    assert anonymous.get("/files/secret").status_code == 303
    with pytest.raises(WebSocketDisconnect), anonymous.websocket_connect("/api/v1/socket"):
        pass


def test_a_preview_is_shown_to_those_who_see_its_job(client: TestClient, places: dict[str, str], world: World) -> None:
    url = f"/api/v1/previews/{places['sha256']}"
    assert client.get(url).content.startswith(PNG)
    assert client.get(url, headers=world.person("other").headers).status_code == 404
    assert client.get(f"/api/v1/previews/{'0' * 64}").status_code == 404
    assert client.get("/api/v1/previews/..%2f..%2fsecret").status_code in {404, 422}
