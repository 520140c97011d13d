"""A client of the HTTP API: what the command line and the demo are made of. Typed, synchronous, patient with restarts."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
from pydantic import ValidationError

from app.models import TERMINAL_JOB_STATES
from app.planning import PlanOut
from app.problems import Problem
from app.sweeps import SweepPlanOut
from app.trouble import ClientError, Damaged, Refused, Unreachable
from app.uploads import UploadOut
from app.views import (
    ArtifactsOut,
    EventOut,
    EventPage,
    JobOut,
    JobPage,
    ResultsOut,
    SweepOut,
    SweepPage,
    TableOut,
)

TIMEOUT = httpx.Timeout(30.0, connect=5.0)
SILENCE_S = 60.0  # a stream that sends not even a ping for so long is broken
PATIENCE_S = 60.0  # how long a server may be away before a stream or a request gives up
CHUNK = 2**18  # bytes of a file that are sent at a time
UPLOAD_S = 900.0  # how long a server may take to unpack an archive
LOOK_S = 2.0  # between two looks at a sweep that is waited for
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 3.0
TOKEN = re.compile(r"[!-~]*")  # what a header can carry
BUSY = frozenset({502, 503, 504})


class Patience:
    """How long to try again, with longer and longer pauses, before an error is raised."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self.renew()

    def renew(self) -> None:
        """It went well: begin anew."""
        self._deadline, self._pause_s = time.monotonic() + self._limit_s, FIRST_PAUSE_S

    def bear(self, error: ClientError) -> None:
        """Pause before another try, or raise the error."""
        if time.monotonic() + self._pause_s > self._deadline:
            raise error
        time.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)


class Client:
    """`Client(url, token)`; use it in a `with` block. A server that answered once may be away for a while after that."""

    def __init__(
        self, url: str, token: str, *, patience_s: float = PATIENCE_S, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.url = _address(url)
        self._patience_s, self._was_there = patience_s, False
        if not TOKEN.fullmatch(token):
            raise ClientError(
                "The token holds characters that no token has.",
                "Copy it again, without quotes and blanks, from `fadrm token create` into FADRM_TOKEN.",
            )
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(
            base_url=f"{self.url}/api/v1", headers=headers, timeout=TIMEOUT, transport=transport, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def plan(self, body: Mapping[str, Any]) -> PlanOut:
        """What a job would do and cost. body: {"spec": ...} or {"preset": ..., "overrides": ...}."""
        return PlanOut.model_validate(self._post("/jobs/plan", body))

    def submit(self, body: Mapping[str, Any], *, key: str | None = None) -> JobOut:
        """Create a job. Sent again until there is an answer; the key makes sure that it is one job all the same."""
        headers = {"Idempotency-Key": key or str(uuid4())}
        return JobOut.model_validate(self._post("/jobs", body, headers=headers))

    def upload(self, archive: Path, title: str) -> UploadOut:
        """Send a zip of class folders; the same bytes are the same data set, however often they are sent."""
        timeout = httpx.Timeout(UPLOAD_S, connect=TIMEOUT.connect)
        headers = {"Content-Type": "application/zip", "Content-Length": str(archive.stat().st_size)}
        options = {"params": {"title": title}, "headers": headers, "timeout": timeout}
        return UploadOut.model_validate(self._send("POST", "/datasets", content=_Bytes(archive), **options))

    def job(self, job_id: str) -> JobOut:
        """How a job stands."""
        return JobOut.model_validate(self._get(f"/jobs/{job_id}"))

    def jobs(self, *, limit: int = 20) -> JobPage:
        """The newest jobs."""
        return JobPage.model_validate(self._get("/jobs", params={"limit": limit}))

    def cancel(self, job_id: str) -> JobOut:
        """Ask for the end of a job."""
        return JobOut.model_validate(self._post(f"/jobs/{job_id}/cancel", None))

    def pause(self, job_id: str) -> JobOut:
        """Let a job rest; what runs leaves a checkpoint."""
        return JobOut.model_validate(self._post(f"/jobs/{job_id}/pause", None))

    def resume(self, job_id: str) -> JobOut:
        """Let a paused job go on."""
        return JobOut.model_validate(self._post(f"/jobs/{job_id}/resume", None))

    def retry(self, job_id: str) -> JobOut:
        """Try a failed or cancelled job again; whole steps stay."""
        return JobOut.model_validate(self._post(f"/jobs/{job_id}/retry", None))

    def plan_sweep(self, body: Mapping[str, Any]) -> SweepPlanOut:
        """What a sweep would do and cost. body: as for a job, and "axes"."""
        return SweepPlanOut.model_validate(self._post("/sweeps/plan", body))

    def submit_sweep(self, body: Mapping[str, Any], *, key: str | None = None) -> SweepOut:
        """Create a sweep; however often it is sent, it is one."""
        headers = {"Idempotency-Key": key or str(uuid4())}
        return SweepOut.model_validate(self._post("/sweeps", body, headers=headers))

    def sweep(self, sweep_id: str) -> SweepOut:
        """How a sweep stands: its jobs, with their scores."""
        return SweepOut.model_validate(self._get(f"/sweeps/{sweep_id}"))

    def sweeps(self, *, limit: int = 20) -> SweepPage:
        """The newest sweeps."""
        return SweepPage.model_validate(self._get("/sweeps", params={"limit": limit}))

    def cancel_sweep(self, sweep_id: str) -> SweepOut:
        """Ask for the end of all jobs of a sweep."""
        return SweepOut.model_validate(self._post(f"/sweeps/{sweep_id}/cancel", None))

    def wait_for_sweep(self, sweep_id: str, *, every_s: float = LOOK_S) -> SweepOut:
        """Wait until all jobs of a sweep have ended."""
        while (found := self.sweep(sweep_id)).state not in TERMINAL_JOB_STATES:
            time.sleep(every_s)
        return found

    def sweep_table(self, sweep_id: str, *, student: str = "", labels: str = "") -> TableOut:
        """A row a job: axes, then mean and spread of each subject."""
        asked = {"student": student, "labels": labels}
        return TableOut.model_validate(self._get(f"/sweeps/{sweep_id}/table", params=asked))

    def results(self, job_id: str) -> ResultsOut:
        """The score card."""
        return ResultsOut.model_validate(self._get(f"/jobs/{job_id}/results"))

    def artifacts(self, job_id: str) -> ArtifactsOut:
        """The files of a finished job."""
        return ArtifactsOut.model_validate(self._get(f"/jobs/{job_id}/artifacts"))

    def event_page(self, job_id: str, *, after: int = 0) -> EventPage:
        """Events past a number, as many as fit in one answer."""
        return EventPage.model_validate(self._get(f"/jobs/{job_id}/events", params={"after_seq": after, "limit": 1000}))

    def events(self, job_id: str, *, after: int = 0) -> Iterator[EventOut]:
        """Every event of a job past a number, once and in order, as they come, until the job has ended."""
        patience = self._patience()
        while True:
            try:
                for event in self._stream(job_id, after):
                    if event is None:
                        return
                    after = event.seq
                    patience.renew()
                    yield event
                time.sleep(FIRST_PAUSE_S)  # the server ended the stream: it goes down, or was told to
            except httpx.TransportError as error:
                patience.bear(self._unreachable(error))
            except Refused as refused:
                if refused.problem.status not in BUSY:
                    raise
                patience.bear(refused)

    def wait(self, job_id: str) -> JobOut:
        """Wait until a job has ended."""
        for _ in self.events(job_id, after=self.job(job_id).version):
            pass
        return self.job(job_id)

    def download(self, job_id: str, name: str, folder: Path) -> Path:
        """Fetch a file of a finished job, going on where an earlier download broke off. Its hash is checked."""
        wanted = next((file for file in self.artifacts(job_id).data if file.name == name), None)
        if wanted is None:
            raise ClientError(f"{job_id} has no file {name}.", "A job has files when it has succeeded.")
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / Path(name).name
        part = target.with_name(f".{target.name}.{wanted.sha256[:12]}.part")
        patience = self._patience()
        while not self._fetch(f"/jobs/{job_id}/artifacts/{name}", part, wanted.sha256, patience):
            pass
        _check(part, wanted.sha256)
        part.replace(target)
        return target

    def _fetch(self, path: str, part: Path, sha256: str, patience: Patience) -> bool:
        """Fetch what is missing; False when the connection broke off on the way."""
        have = part.stat().st_size if part.exists() else 0
        rest = {"Range": f"bytes={have}-", "If-Range": f'"sha256-{sha256}"'} if have else {}
        headers = {"Accept-Encoding": "identity"} | rest
        try:
            with self._http.stream("GET", path, headers=headers) as response:
                if response.status_code == 416:  # nothing is missing
                    return True
                _raise_for(response)
                with part.open("ab" if response.status_code == 206 else "wb") as file:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
                        patience.renew()
        except httpx.TransportError as error:
            patience.bear(self._unreachable(error))
            return False
        return True

    def _stream(self, job_id: str, after: int) -> Iterator[EventOut | None]:
        """One connection's events; None says that there will be no more."""
        timeout = httpx.Timeout(TIMEOUT.connect, read=SILENCE_S)
        headers = {"Last-Event-ID": str(after), "Accept": "text/event-stream"}
        with self._http.stream("GET", f"/jobs/{job_id}/events/stream", headers=headers, timeout=timeout) as response:
            _raise_for(response)
            if response.status_code == 204:
                yield None
                return
            for name, data in _messages(response.iter_lines()):
                if name == "end":
                    yield None
                    return
                if name == "reset":  # too far behind for the stream: the rest is read in pages
                    yield from self._pages(job_id, after, until=json.loads(data)["last_seq"])
                else:
                    yield EventOut.model_validate_json(data)

    def _pages(self, job_id: str, after: int, *, until: int) -> Iterator[EventOut]:
        while after < until:
            page = self.event_page(job_id, after=after)
            yield from (event for event in page.data if event.seq <= until)
            after = page.last_seq

    def _get(self, path: str, *, params: Mapping[str, Any] | None = None) -> Any:
        return self._send("GET", path, params=params)

    def _post(self, path: str, body: Mapping[str, Any] | None, *, headers: Mapping[str, str] | None = None) -> Any:
        return self._send("POST", path, json=body, headers=headers)

    def _send(self, method: str, path: str, **options: Any) -> Any:
        """Send until there is an answer: every request of this client may be sent twice."""
        patience = self._patience()
        while True:
            try:
                response = self._http.request(method, path, **options)
                self._was_there = True
                _raise_for(response)
                return response.json()
            except httpx.TransportError as error:
                patience.bear(self._unreachable(error))
            except Refused as refused:
                if refused.problem.status not in BUSY:
                    raise
                patience.bear(refused)

    def _patience(self) -> Patience:
        return Patience(self._patience_s if self._was_there else 0.0)

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(
            f"There is no answer from {self.url} ({error}).",
            "Start a server with `fadrm up`, or set FADRM_URL and FADRM_TOKEN to one that runs.",
        )


class _Bytes:
    """A file's bytes, from the beginning each time that they are sent."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk


def _address(url: str) -> str:
    """A server's address without the last slash. Raises Unreachable when it is none."""
    hint = "Write it as http://HOST:PORT in FADRM_URL."
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0 and url.isprintable()
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise Unreachable(f"{url!r} is no address of a server: {error}.", hint) from error
    if not is_one or " " in url:
        raise Unreachable(f"{url!r} is no address of a server.", hint)
    return url.rstrip("/")


def _raise_for(response: httpx.Response) -> None:
    """Raises Refused when the answer is an error."""
    if response.status_code < 400:
        return
    response.read()
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        title = f"The server answered {response.status_code} {response.reason_phrase}."
        problem = Problem(title=title, status=response.status_code, detail=title, instance="", code="unknown")
    raise Refused(problem)


def _messages(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Name and data of each message of a text/event-stream."""
    name, data = "message", ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            data = line.removeprefix("data: ")
        elif not line and data:
            yield name, data
            name, data = "message", ""


def _check(path: Path, sha256: str) -> None:
    """Raises Damaged, and removes the file, when its bytes are not those that they should be."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        path.unlink()
        raise Damaged(
            f"{path.name} arrived damaged: its SHA-256 is {found[:12]}..., not {sha256[:12]}....",
            "Download it again; if that does not help, look at the server's disk.",
        )


def is_over(job: JobOut) -> bool:
    """Whether nothing more will happen to a job."""
    return job.state in TERMINAL_JOB_STATES
