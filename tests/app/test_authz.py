"""Who may reach what: every route that the app has, made from the app itself, so that one added tomorrow is asked too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocketDisconnect

from tests.app.archives import archive
from tests.app.world import PNG, Person, World, spec_body

OPEN = {"/healthz", "/readyz", "/login", "/static/{digest}/{name:path}", "/static/vendor/{name:path}"}
OF_A_JOB = ("{job_id}", "{sha256}", "{sweep_id}", "/api/v1/stream")
OF_UNFINISHED = ("/cancel", "/pause", "/resume", "/retry")  # refused for a job that has succeeded
FOR_ADMINS = ("{worker_id}", "/metrics")
FOR_WRITERS = {
    "/api/v1/datasets",
    "/api/v1/jobs",
    "/api/v1/jobs/{job_id}/cancel",
    "/api/v1/jobs/{job_id}/pause",
    "/api/v1/jobs/{job_id}/rerun",
    "/api/v1/jobs/{job_id}/restore",
    "/api/v1/jobs/{job_id}/resume",
    "/api/v1/jobs/{job_id}/retry",
    "/api/v1/sweeps",
    "/api/v1/uploads",
    "/api/v1/uploads/{arrival_id}/finish",
    "/api/v1/sweeps/{sweep_id}/cancel",
    "/api/v1/sweeps/{sweep_id}/restore",
    "/api/v1/sweeps/{sweep_id}/retry",
    "/jobs/new",
    "/jobs/demo",
    "/sweeps/new",
    "/sweeps/{sweep_id}/cancel",
    "/sweeps/{sweep_id}/delete",
    "/sweeps/{sweep_id}/retry",
}
SWEEP = {"spec": spec_body(), "axes": [{"name": "seed", "path": "/seed", "values": [0]}]}
BODIES = {
    "/api/v1/jobs": {"spec": spec_body()},
    "/api/v1/jobs/{job_id}": {"name": "another"},
    "/api/v1/jobs/plan": {"spec": spec_body()},
    "/api/v1/sweeps": SWEEP,
    "/api/v1/sweeps/plan": SWEEP,
    "/api/v1/tokens": {"name": "t"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A route with one of its methods."""

    method: str
    path: str

    @property
    def is_api(self) -> bool:
        return self.path.startswith("/api/") or self.path == "/metrics"


OF_A_SWEEP = Operation(method="DELETE", path="/api/v1/jobs/{job_id}")  # goes with its sweep
PIECE = Operation(method="PATCH", path="/api/v1/uploads/{arrival_id}")
HEADERS = {PIECE: {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}}
REMOVAL = Operation(method="DELETE", path="/api/v1/datasets/{upload_id}")


def operations(app: FastAPI) -> Iterator[Operation]:
    for route in iter_route_contexts(app.routes):
        for method in sorted(route.methods or {"GET"}):
            assert route.path is not None
            yield Operation(method=method, path=route.path)


@pytest.fixture
def closed(app: FastAPI) -> list[Operation]:
    """Every operation that asks who one is."""
    found = [operation for operation in operations(app) if operation.path not in OPEN]
    assert len(found) > 35 and {operation.path for operation in operations(app)} >= OPEN
    return found


@pytest.fixture
def places(client: TestClient, world: World) -> dict[str, str]:
    """What the names in paths stand for: a finished job of the owner, and what is of it."""
    sweep = client.post("/api/v1/sweeps", json=SWEEP).json()
    job = client.get(sweep["cells"][0]["url"]).json()
    world.work()
    [sheets] = client.get(job["urls"]["previews"]).json()["data"]
    [token] = client.get("/api/v1/tokens").json()
    world.worker_online()
    upload = client.post("/api/v1/datasets", content=archive(), headers={"Content-Type": "application/zip"}).json()
    return {
        "job_id": job["id"],
        "sweep_id": sweep["id"],
        "sha256": sheets["previews"][0]["sha256"],
        "name:path": "card.md",
        "token_id": token["id"],
        "upload_id": upload["id"],
        "arrival_id": client.post("/api/v1/uploads", headers={"Upload-Length": "9"}).json()["id"],
        "worker_id": "test:cpu:0",
    }


def send(client: TestClient, operation: Operation, places: dict[str, str], who: Person | None) -> int:
    """The status; to be sent to the login is 401 for people."""
    path = operation.path
    for name, value in places.items():
        path = path.replace(f"{{{name}}}", value)
    query = f"?jobs={places['job_id']}" if path == "/api/v1/stream" else ""
    client.headers.pop("authorization", None)
    body = BODIES.get(operation.path) if operation.method in {"POST", "PATCH"} else None
    headers = (who.headers if who else {}) | HEADERS.get(operation, {})
    answer = client.request(operation.method, path + query, headers=headers, json=body)
    if answer.status_code == 303 and answer.headers["location"].startswith("/login?next="):
        return 401
    status: int = answer.status_code
    return status


def test_nobody_reaches_anything_without_logging_in(
    client: TestClient, closed: list[Operation], places: dict[str, str]
) -> None:
    reached = {operation: status for operation in closed if (status := send(client, operation, places, None)) != 401}
    assert not reached


def test_a_wrong_token_is_nobody(
    client: TestClient, closed: list[Operation], places: dict[str, str], owner: Person
) -> None:
    nobody = Person(user=owner.user, token=owner.token[:-1] + "?")
    reached = {operation: status for operation in closed if (status := send(client, operation, places, nobody)) != 401}
    assert not reached


def test_people_are_sent_to_the_login_and_programs_are_told(anonymous: TestClient, closed: list[Operation]) -> None:
    for operation in closed:
        answer = anonymous.request(operation.method, operation.path)
        if operation.is_api:
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer", operation
        else:
            assert answer.status_code == 303 and answer.headers["location"].startswith("/login"), operation


def test_what_is_of_another_is_not_there(
    client: TestClient, closed: list[Operation], places: dict[str, str], world: World
) -> None:
    other = world.person("other")
    for operation in closed:
        theirs = any(part in operation.path for part in (*OF_A_JOB, "{token_id}", "{arrival_id}"))
        status = send(client, operation, places, other)
        if operation == REMOVAL or any(
            part in operation.path for part in FOR_ADMINS
        ):  # everybody sees and uses what is uploaded
            assert status == 403
            continue
        assert (status == 404) if theirs else (status < 400 or status == 422), (operation, status)


def _ending(operation: Operation) -> tuple[bool, bool, bool]:
    """What removes something comes last, the own token after all else."""
    is_page = operation.path.endswith("/delete")
    return operation.method == "DELETE" or is_page, "token_id" in operation.path, is_page


@pytest.mark.parametrize("name", ["owner", "admin"])
def test_owners_and_administrators_reach_everything(
    client: TestClient, closed: list[Operation], places: dict[str, str], world: World, name: str
) -> None:
    person = world.person(name)
    for operation in sorted(closed, key=_ending):
        status = send(client, operation, places, person)
        if "{token_id}" in operation.path:  # tokens are their owner's only
            assert status == (204 if name == "owner" else 404)
        elif "{arrival_id}" in operation.path and name == "admin":  # and so are uploads under way
            assert status == 404
        elif operation.path == "/api/v1/uploads/{arrival_id}/finish":
            assert status == 409
        elif any(part in operation.path for part in FOR_ADMINS) and name == "owner":
            assert status == 403
        elif any(part in operation.path for part in FOR_ADMINS):
            assert status in {200, 303}
        elif operation.path.endswith(OF_UNFINISHED) or operation == OF_A_SWEEP:
            assert status == 409
        elif operation.path == "/sweeps/{sweep_id}/delete":  # the API's route was asked before
            assert status == 404
        else:
            assert status < 400 or status == 422, (operation, status)


def test_viewers_change_nothing(
    client: TestClient, closed: list[Operation], places: dict[str, str], world: World
) -> None:
    viewer = world.person("viewer", "viewer")
    for operation in closed:
        writes = operation.method == "POST" and operation.path in FOR_WRITERS
        if writes or operation.method == "PATCH" or operation in {REMOVAL, OF_A_SWEEP}:
            assert send(client, operation, places, viewer) == 403, operation


def test_only_posts_patches_and_deletes_change_something(closed: list[Operation]) -> None:
    assert {operation.method for operation in closed} <= {"GET", "HEAD", "POST", "PATCH", "DELETE"}


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
