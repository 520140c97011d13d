"""The live stream over a real server: nothing lost, nothing twice, however often one comes again; and it ends."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from sqlalchemy import delete

from app import controls, jobs
from app.frames import RECENT
from app.jobs import Note
from app.main import Server, create_app, server
from app.models import Job, Token
from app.settings import DEFAULTS
from app.stream import Hub
from app.watchers import RESET_BEHIND
from tests.app.world import Person, World, chain


@dataclass(slots=True, kw_only=True)
class Live:
    """A server that runs, and its world."""

    world: World
    url: str
    server: Server
    hub: Hub
    job_ids: list[str] = field(default_factory=list)

    def job(self, name: str = "a") -> str:
        """A job that waits, of the owner."""
        return self.world.submit(self.world.person("owner"), chain(name)).id

    def tell(self, job_id: str, count: int) -> None:
        """Some events at once."""
        with self.world.services.database.write() as session:
            jobs.tell(session, job_id, [Note(kind="log", data={"message": str(number)}) for number in range(count)])

    def cancel(self, job_id: str) -> None:
        """The end of a job."""
        with self.world.services.database.write() as session:
            controls.cancel(session, session.get_one(Job, job_id), self.world.person("owner").user)

    @contextmanager
    def open(self, path: str, who: Person | None = None, *, last_id: str | None = None) -> Iterator[httpx.Response]:
        """A stream. last_id: what a browser sends that comes again."""
        headers = (who or self.world.person("owner")).headers | ({"Last-Event-ID": last_id} if last_id else {})
        with httpx.stream("GET", self.url + path, headers=headers, timeout=20) as response:
            yield response


@pytest.fixture
def live(world: World) -> Iterator[Live]:
    with running(world) as made:
        yield made


@pytest.fixture
def any_live(any_world: World) -> Iterator[Live]:
    with running(any_world) as made:
        yield made


@contextmanager
def running(world: World) -> Iterator[Live]:
    """A server on a port of its own, impatient."""
    app = create_app(world.services, background=False)
    hub = app.state.hub = Hub(world.services.database, poll_s=0.02, ping_s=0.2, check_s=0.3)
    serving = server(app, host="127.0.0.1", port=0)
    thread = threading.Thread(target=serving.run)
    thread.start()
    while not serving.started:
        time.sleep(0.01)
    port = serving.servers[0].sockets[0].getsockname()[1]
    yield Live(world=world, url=f"http://127.0.0.1:{port}", server=serving, hub=hub)
    serving.should_exit = True
    thread.join(timeout=20)
    assert not thread.is_alive()


Event = dict[str, Any]


def events_of(response: httpx.Response) -> Iterator[Event]:
    """The stream as a browser reads it: name, data, id of each event; comments are named so."""
    event: Event = {}
    for line in response.iter_lines():
        if not line:
            if event:
                yield event
            event = {}
        elif line.startswith(":"):
            event["event"] = "comment"
        else:
            name, _, value = line.partition(": ")
            event[name] = json.loads(value) if name == "data" else value


def seqs(found: list[Event]) -> list[int]:
    return [event["data"]["seq"] for event in found if "seq" in event.get("data", {})]


def test_history_then_news_then_the_end(live: Live) -> None:
    job_id = live.job()
    live.tell(job_id, 3)
    with live.open(f"/api/v1/jobs/{job_id}/events/stream") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"
        stream = events_of(response)
        first = [next(stream) for _ in range(5)]
        live.tell(job_id, 2)
        live.cancel(job_id)
        rest = [event for event in stream if event["event"] != "comment"]
    assert first[0] == {"retry": "3000"}
    assert [event["id"] for event in first[1:]] == ["1", "2", "3", "4"]
    assert seqs(first + rest) == list(range(1, 9))
    assert [event["event"] for event in rest[-2:]] == ["job", "end"]
    assert rest[-1]["data"] == {"job_id": job_id, "state": "cancelled"}


def test_coming_again_at_random_gives_everything_once(any_live: Live) -> None:
    names = [any_live.job(str(number)) for number in range(2)]
    rounds, batch = 25, 6

    def write(job_id: str) -> None:
        chance = random.Random(job_id)
        for _ in range(rounds):
            any_live.tell(job_id, chance.randint(1, batch))
            time.sleep(chance.random() * 0.04)
        any_live.cancel(job_id)

    def follow(who: int) -> list[int]:
        """Break off after some events, again and again; now by the number, now as a browser does."""
        chance, job_id, seen = random.Random(who), names[who % 2], []
        last, over = 0, False
        while not over:
            last_id = str(last) if last and chance.random() < 0.5 else None
            number = chance.randint(0, 3) if last_id else last  # the header wins
            with any_live.open(f"/api/v1/jobs/{job_id}/events/stream?after_seq={number}", last_id=last_id) as response:
                if response.status_code == 204:
                    break
                patience = chance.randint(1, 30)
                for event in events_of(response):
                    if "seq" in event.get("data", {}):
                        seen.append(event["data"]["seq"])
                        last = int(event["id"])
                    over = over or event.get("event") == "end"
                    patience -= 1
                    if not patience:
                        break
        return seen

    with ThreadPoolExecutor(8) as pool:
        writing = [pool.submit(write, job_id) for job_id in names]
        following = [pool.submit(follow, number) for number in range(6)]
        for task in writing:
            task.result()
        found = [task.result() for task in following]
    for number, seen in enumerate(found):
        assert seen == list(range(1, any_live.world.job(names[number % 2]).last_seq + 1))


def test_more_than_the_hub_keeps_is_read_from_the_database(live: Live) -> None:
    job_id = live.job()
    with live.open(f"/api/v1/jobs/{job_id}/events/stream") as response:
        stream = events_of(response)
        first = [next(stream), next(stream)]
        live.tell(job_id, RECENT + 500)
        live.cancel(job_id)
        rest = list(stream)
    assert seqs(first + rest) == list(range(1, RECENT + 504))


def test_who_knows_everything_of_a_finished_job_is_told_not_to_come_again(live: Live) -> None:
    job_id = live.job()
    live.cancel(job_id)
    last = live.world.job(job_id).last_seq
    with live.open(f"/api/v1/jobs/{job_id}/events/stream?after_seq={last}") as response:
        assert response.status_code == 204
    with live.open(f"/api/v1/jobs/{job_id}/events/stream", last_id=str(last - 1)) as response:
        assert [event.get("event") for event in events_of(response)] == [None, "job", "end"]


def test_who_is_far_behind_starts_anew(live: Live) -> None:
    job_id = live.job()
    live.tell(job_id, RESET_BEHIND + 1)
    with live.open(f"/api/v1/jobs/{job_id}/events/stream") as response:
        stream = events_of(response)
        _, reset = next(stream), next(stream)
        live.tell(job_id, 1)
        new = next(event for event in stream if event["event"] != "comment")
    last = RESET_BEHIND + 2
    assert (reset["event"], reset["data"]) == ("reset", {"job_id": job_id, "last_seq": last})
    assert reset["id"] == str(last) and new["id"] == str(last + 1)


def test_several_jobs_come_in_one_stream(live: Live) -> None:
    one, two = live.job("one"), live.job("two")
    live.cancel(two)
    known = live.world.job(two).last_seq
    with live.open(f"/api/v1/stream?jobs={one},{two}&after_seq=0,{known - 1}") as response:
        stream = events_of(response)
        first = [next(stream) for _ in range(4)]
        live.tell(one, 1)
        new = next(event for event in stream if event["event"] != "comment")
    assert [event.get("id") for event in first] == [None, "1,2", "1,3", "1,3"]
    assert first[3]["data"] == {"job_id": two, "state": "cancelled"}
    assert new["id"] == "2,3"
    with live.open(f"/api/v1/stream?jobs={one},{two}", last_id="1,3") as response:
        again = events_of(response)
        assert [next(again).get("event") for _ in range(3)] == [None, "end", "log"]


def test_hints_tell_which_of_the_visible_jobs_changed(live: Live) -> None:
    job_id = live.job()
    stranger = live.world.person("stranger")
    live.world.submit(stranger, chain("theirs"))
    with live.open("/api/v1/stream") as mine, live.open("/api/v1/stream", live.world.person("admin")) as all_of_them:
        stream = (event for event in events_of(mine) if event.get("event") == "job")
        assert next(stream)["data"]["id"] == job_id
        live.cancel(job_id)
        found = next(event["data"] for event in stream if event["data"]["state"] == "cancelled")
        assert found == {"id": job_id, "state": "cancelled", "version": live.world.job(job_id).last_seq}
        hints = (event["data"]["id"] for event in events_of(all_of_them) if event.get("event") == "job")
        assert len({next(hints), next(hints)}) == 2


def test_a_silent_stream_is_kept_open(live: Live) -> None:
    with live.open(f"/api/v1/jobs/{live.job()}/events/stream?after_seq=1") as response:
        stream = events_of(response)
        assert [next(stream) for _ in range(3)] == [{"retry": "3000"}, {"event": "comment"}, {"event": "comment"}]


def test_a_page_sees_that_a_silent_stream_lives(live: Live) -> None:
    for path in (f"/api/v1/jobs/{live.job()}/events/stream?after_seq=1&pings=true", "/api/v1/stream?pings=true"):
        with live.open(path) as response:
            found = next(event for event in events_of(response) if event.get("event") not in {None, "job"})
        assert found == {"event": "ping", "data": {}}


def test_a_stream_ends_when_its_token_does(live: Live) -> None:
    with live.open(f"/api/v1/jobs/{live.job()}/events/stream") as response:
        stream = events_of(response)
        next(stream)
        with live.world.services.database.write() as session:
            session.execute(delete(Token))
        assert [event["event"] for event in stream][:1] == ["job"]


def test_a_user_may_not_open_streams_without_end(live: Live) -> None:
    path = f"/api/v1/jobs/{live.job()}/events/stream"
    with httpx.Client(headers=live.world.person("owner").headers, base_url=live.url) as client:
        opened = [
            client.send(client.build_request("GET", path), stream=True) for _ in range(DEFAULTS.max_streams_per_user)
        ]
        assert {response.status_code for response in opened} == {200}
        assert client.get(path).status_code == 429
        for response in opened:
            response.close()
        deadline = time.monotonic() + 5
        while len(live.hub._watchers) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not live.hub._watchers and not live.hub._channels


def test_the_server_stops_quickly_though_somebody_listens(live: Live) -> None:
    with live.open(f"/api/v1/jobs/{live.job()}/events/stream") as response:
        stream = events_of(response)
        next(stream)
        began = time.monotonic()
        live.server.should_exit = True
        assert "end" not in {event.get("event") for event in stream}
        assert time.monotonic() - began < 2


def test_a_broken_look_does_not_end_the_hub(live: Live) -> None:
    job_id, look = live.job(), live.hub._look

    async def broken() -> None:
        live.hub._look = look  # type: ignore[method-assign]
        raise OSError("a disk hiccup")

    with live.open(f"/api/v1/jobs/{job_id}/events/stream") as response:
        stream = events_of(response)
        assert [next(stream).get("id") for _ in range(2)] == [None, "1"]
        live.hub._look = broken  # type: ignore[method-assign]
        time.sleep(0.1)
        live.tell(job_id, 1)
        assert next(event for event in stream if event["event"] != "comment")["id"] == "2"


@pytest.mark.parametrize("query", ["jobs=job_nobody", "jobs=" + ",".join(f"job_{number}" for number in range(51))])
def test_a_stream_of_what_is_not_there_is_refused(live: Live, query: str) -> None:
    with live.open(f"/api/v1/stream?{query}") as response:
        assert response.status_code in {404, 422}
