"""The client against the real app, and against servers that break off, stay silent, or send what they should not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fadrm import Client, ClientError, Damaged, Refused, Unreachable
from tests.app.world import Person, World, chain, spec_body

Handler = Callable[[httpx.Request], httpx.Response]


class InProcess(httpx.BaseTransport):
    """Requests go straight to the app."""

    def __init__(self, inner: TestClient) -> None:
        self.inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        headers = [(name, value) for name, value in request.headers.raw if name.lower() != b"host"]
        answer = self.inner.request(request.method, str(request.url), headers=headers, content=request.read())
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


@pytest.fixture
def remote(app: FastAPI, owner: Person) -> Iterator[Client]:
    with TestClient(app, follow_redirects=False) as inner:
        yield Client("http://testserver", owner.token, transport=InProcess(inner))


def scripted(handler: Handler, patience_s: float = 5.0) -> Client:
    """A client of a made-up server that was there before."""
    client = Client("http://testserver", "", patience_s=patience_s, transport=httpx.MockTransport(handler))
    client._was_there = True
    return client


def test_a_job_is_planned_submitted_listed_and_cancelled(remote: Client) -> None:
    body = {"spec": spec_body()}
    assert remote.plan(body).steps
    job = remote.submit(body)
    assert remote.jobs().data[0].id == job.id
    assert remote.cancel(job.id).state == "cancelled" and remote.job(job.id).state == "cancelled"


def test_the_same_key_gives_the_same_job(remote: Client) -> None:
    body = {"spec": spec_body()}
    assert remote.submit(body, key="one").id == remote.submit(body, key="one").id != remote.submit(body).id


def test_a_refusal_names_the_field(remote: Client) -> None:
    with pytest.raises(Refused) as refused:
        remote.submit({"spec": spec_body(ipc=-1)})
    assert refused.value.problem.status == 422
    assert refused.value.problem.errors[0].pointer == "/spec/ipc"


def test_events_come_once_and_in_order_to_the_end(remote: Client, world: World, owner: Person) -> None:
    job = world.submit(owner, chain("a", 3))
    world.work()
    last = world.job(job.id).last_seq
    assert [event.seq for event in remote.events(job.id)] == list(range(1, last + 1))
    assert [event.seq for event in remote.events(job.id, after=last - 2)] == [last - 1, last]
    assert list(remote.events(job.id, after=last)) == []
    assert remote.wait(job.id).state == "succeeded"


def test_a_file_is_downloaded_and_checked(remote: Client, world: World, owner: Person, tmp_path: Path) -> None:
    job = world.submit(owner, chain("d"))
    world.work()
    path = remote.download(job.id, "distilled set.zip", tmp_path / "here")
    assert path.read_bytes() == bytes(range(256)) * 40
    with pytest.raises(ClientError, match="no file"):
        remote.download(job.id, "nothing.zip", tmp_path)


def test_a_download_goes_on_where_it_broke_off(remote: Client, world: World, owner: Person, tmp_path: Path) -> None:
    job = world.submit(owner, chain("d"))
    world.work()
    (file,) = [one for one in remote.files(job.id).data if one.name.endswith(".zip")]
    content = bytes(range(256)) * 40
    (tmp_path / f".{file.name}.{file.sha256[:12]}.part").write_bytes(content[:1000])
    asked: list[str] = []
    inner = remote._http._transport
    assert isinstance(inner, InProcess)

    class Listening(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            asked.append(request.headers.get("range", ""))
            return inner.handle_request(request)

    remote._http._transport = Listening()
    assert remote.download(job.id, file.name, tmp_path).read_bytes() == content
    assert asked[-1] == "bytes=1000-"


def test_a_damaged_download_is_not_kept(remote: Client, world: World, owner: Person, tmp_path: Path) -> None:
    job = world.submit(owner, chain("d"))
    world.work()
    (file,) = [one for one in remote.files(job.id).data if one.name.endswith(".zip")]
    (tmp_path / f".{file.name}.{file.sha256[:12]}.part").write_bytes(b"x" * 1000)
    with pytest.raises(Damaged):
        remote.download(job.id, file.name, tmp_path)
    assert remote.download(job.id, file.name, tmp_path).exists()


def test_a_stream_that_breaks_off_is_taken_up_again() -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        after = int(request.headers["last-event-id"])
        asked.append(str(after))
        if len(asked) == 2:
            raise httpx.ConnectError("away")
        if after == 4:
            return httpx.Response(204)
        event = {
            "seq": after + 1,
            "kind": "log",
            "job_id": "j",
            "step_id": None,
            "at": "2026-01-01T00:00:00Z",
            "data": {},
        }
        text = "".join(
            f"event: log\ndata: {httpx.Response(200, json=event | {'seq': seq}).text}\n\n"
            for seq in (after + 1, after + 2)
        )
        return httpx.Response(200, text=": open\n\n" + text)

    assert [event.seq for event in scripted(handler).events("j")] == [1, 2, 3, 4]
    assert asked == ["0", "2", "2", "4"]


def test_a_server_that_stays_away_is_given_up() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(Unreachable, match="no answer"):
        scripted(handler, patience_s=0.3).job("j")
    with pytest.raises(Unreachable):
        list(scripted(handler, patience_s=0.3).events("j"))


def test_a_busy_server_is_asked_again() -> None:
    answers = iter([503, 502, 200])

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(next(answers), json={"data": [], "has_more": False, "next_cursor": None})

    assert scripted(handler).jobs().data == []


def test_an_answer_that_is_no_problem_of_ours_is_told_all_the_same() -> None:
    client = scripted(lambda request: httpx.Response(418, text="<html>a proxy</html>"))
    with pytest.raises(Refused, match="418"):
        client.job("j")


def test_a_download_that_breaks_off_in_the_middle_is_gone_on_with(tmp_path: Path) -> None:
    content = b"0123456789" * 100
    sha256 = hashlib.sha256(content).hexdigest()
    file = {
        "name": "a.zip",
        "ipc": 1,
        "form": "package",
        "step": "k",
        "size_bytes": len(content),
        "sha256": sha256,
        "url": "/a.zip",
    }
    listing = {"ready": True, "finished_at": None, "data": [file]}
    asked: list[str] = []

    def halves() -> Iterator[bytes]:
        yield content[:500]
        raise httpx.ReadError("cut")

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/artifacts"):
            return httpx.Response(200, json=listing)
        asked.append(request.headers.get("range", ""))
        if len(asked) == 1:
            return httpx.Response(200, content=halves())
        return httpx.Response(206, content=content[500:])

    assert scripted(handler).download("j", "a.zip", tmp_path).read_bytes() == content
    assert asked == ["", "bytes=500-"]
