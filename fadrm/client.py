"""A client of the HTTP API: typed, synchronous, patient with restarts. The command line is made of it."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
from pydantic import TypeAdapter, ValidationError

from fadrm import connection, requests, uploading
from fadrm.comparison import Comparison, compare
from fadrm.errors import ClientError, Damaged, Refused, Unreachable
from fadrm.jobs import Job, JobPage
from fadrm.models import (
    DataSet,
    Event,
    EventPage,
    Export,
    File,
    Files,
    Link,
    LogLine,
    LogPage,
    Plan,
    Preset,
    Previews,
    Problem,
    Results,
    SweepPlan,
    Table,
    Upload,
    Weights,
    Worker,
)
from fadrm.requests import Wanted
from fadrm.sweeps import Sweep, SweepPage
from fadrm.uploading import Told

TIMEOUT = httpx.Timeout(30.0, connect=5.0)
SILENCE_S = 60.0  # a stream that sends not even a ping for so long is broken
PATIENCE_S = 60.0  # how long a server may be away before a stream or a request gives up
LOOK_S = 2.0  # between two looks at a sweep that is waited for
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 3.0
TOKEN = re.compile(r"[!-~]*")  # what a header can carry
BUSY = frozenset({502, 503, 504})
QUIET = frozenset({"progress", "metrics", "preview"})  # events that are no lines of the log


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
    """`Client(url, token)`; what is left out is FADRM_URL and FADRM_TOKEN, or the server of this machine.

    Use it in a `with` block, or `close()` it. A server that answered once may be away for a while after that.
    """

    def __init__(
        self,
        url: str = "",
        token: str = "",
        *,
        patience_s: float = PATIENCE_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        found = connection.find(url, token)
        self.url = _address(found.url)
        self._patience_s, self._was_there = patience_s, False
        if not TOKEN.fullmatch(found.token):
            raise ClientError(
                "The token holds characters that no token has.",
                "Copy it again, without quotes and blanks, from `fadrm token create` into FADRM_TOKEN.",
            )
        headers = {"Authorization": f"Bearer {found.token}"} if found.token else {}
        self._http = httpx.Client(
            base_url=f"{self.url}/api/v1", headers=headers, timeout=TIMEOUT, transport=transport, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the connection go."""
        self._http.close()

    def plan(
        self,
        wanted: Wanted = None,
        *,
        preset: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> Plan:
        """What a job would do and cost; nothing is stored. Arguments as of `submit`."""
        body = requests.job_body(wanted, preset=preset, overrides=overrides, name=name)
        return Plan.model_validate(self._post("/jobs/plan", body))

    def submit(
        self,
        wanted: Wanted = None,
        *,
        preset: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        name: str | None = None,
        key: str | None = None,
    ) -> Job:
        """Create a job. Sent again until there is an answer; the key makes sure that it is one job all the same.

        wanted: a spec or a whole request as a dict, or the path of a YAML or JSON file that holds one. Or preset: a
        name, and overrides: what to change in it. Raises Refused with a pointer to each field that is wrong.
        """
        body = requests.job_body(wanted, preset=preset, overrides=overrides, name=name)
        headers = {"Idempotency-Key": key or str(uuid4())}
        return Job.model_validate(self._post("/jobs", body, headers=headers)).of(self)

    def upload(
        self, archive: str | Path, title: str | None = None, *, skip_bad: bool = False, told: Told | None = None
    ) -> Upload:
        """Send a zip of class folders, going on where an earlier try broke off; the same bytes are the same data set.

        skip_bad: leave out images that cannot be read, at most one in a hundred, instead of refusing all.
        told: called with the bytes that are there and those in all. Raises Refused.
        """
        path = Path(archive)
        return uploading.send_images(self, path, title or path.stem[:80], skip_bad=skip_bad, told=told)

    def upload_teacher(
        self, path: str | Path, network: str, title: str | None = None, *, told: Told | None = None
    ) -> Weights:
        """Send weights of a network as a .safetensors file; what to write in a spec is `teacher` of the answer.

        Raises Refused when it is no such file, or holds the weights of another network.
        """
        path = Path(path)
        return uploading.send_weights(self, path, title or path.stem[:80], network, told=told)

    def weights(self) -> list[Weights]:
        """Weights that were sent, and that you may see."""
        return [Weights.model_validate(one) for one in self._get("/weights")]

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Any request below /api/v1 that may be sent twice, until there is an answer: its JSON, if it has any."""
        return self._send(method, path, **options)

    def datasets(self) -> list[DataSet]:
        """What can be distilled: built in, uploaded, and folders that the server allows."""
        return TypeAdapter(list[DataSet]).validate_python(self._get("/datasets"))

    def presets(self) -> list[Preset]:
        """Jobs to start from."""
        return TypeAdapter(list[Preset]).validate_python(self._get("/presets"))

    def workers(self) -> list[Worker]:
        """Who works, the one last heard of first."""
        return TypeAdapter(list[Worker]).validate_python(self._get("/workers"))

    def drain_worker(self, worker_id: str) -> Worker:
        """Let a worker take no steps; for administrators."""
        return Worker.model_validate(self._post(f"/workers/{worker_id}/drain", None))

    def resume_worker(self, worker_id: str) -> Worker:
        """Let it take steps again."""
        return Worker.model_validate(self._post(f"/workers/{worker_id}/resume", None))

    def job(self, job_id: str) -> Job:
        """How a job stands."""
        return Job.model_validate(self._get(f"/jobs/{job_id}")).of(self)

    def jobs(self, *, limit: int = 20, after: str | None = None, **filters: Any) -> JobPage:
        """The newest jobs. filters: state (one or a list), owner (`me`, an id or a name), q (text in the name)."""
        asked = {"limit": limit, "after": after, **filters}
        page = JobPage.model_validate(
            self._get("/jobs", params={name: value for name, value in asked.items() if value})
        )
        for job in page.data:
            job.of(self)
        return page

    def spec(self, job_id: str) -> dict[str, Any]:
        """The whole spec of a job, to be edited and submitted again."""
        spec: dict[str, Any] = self._get(f"/jobs/{job_id}/spec")
        return spec

    def cancel(self, job_id: str) -> Job:
        """Ask for the end of a job."""
        return self._control(job_id, "cancel")

    def pause(self, job_id: str) -> Job:
        """Let a job rest; what runs leaves a checkpoint."""
        return self._control(job_id, "pause")

    def resume(self, job_id: str) -> Job:
        """Let a paused job go on."""
        return self._control(job_id, "resume")

    def retry(self, job_id: str) -> Job:
        """Try a failed or cancelled job again; whole steps stay."""
        return self._control(job_id, "retry")

    def plan_sweep(self, wanted: Mapping[str, Any] | str | Path) -> SweepPlan:
        """What a sweep would do and cost: `spec` or `preset`, and `axes`, as a dict or a YAML or JSON file."""
        return SweepPlan.model_validate(self._post("/sweeps/plan", requests.sweep_body(wanted)))

    def submit_sweep(self, wanted: Mapping[str, Any] | str | Path, *, key: str | None = None) -> Sweep:
        """Create a sweep; however often it is sent, it is one."""
        headers = {"Idempotency-Key": key or str(uuid4())}
        answer = self._post("/sweeps", requests.sweep_body(wanted), headers=headers)
        return Sweep.model_validate(answer).of(self)

    def sweep(self, sweep_id: str) -> Sweep:
        """How a sweep stands: its jobs, with their scores."""
        return Sweep.model_validate(self._get(f"/sweeps/{sweep_id}")).of(self)

    def sweeps(self, *, limit: int = 20, after: str | None = None) -> SweepPage:
        """The newest sweeps."""
        params = {"limit": limit} | ({"after": after} if after else {})
        page = SweepPage.model_validate(self._get("/sweeps", params=params))
        for sweep in page.data:
            sweep.of(self)
        return page

    def cancel_sweep(self, sweep_id: str) -> Sweep:
        """Ask for the end of all jobs of a sweep."""
        return Sweep.model_validate(self._post(f"/sweeps/{sweep_id}/cancel", None)).of(self)

    def wait_for_sweep(self, sweep_id: str, *, every_s: float = LOOK_S) -> Sweep:
        """Wait until all jobs of a sweep have ended."""
        while not (found := self.sweep(sweep_id)).is_over:
            time.sleep(every_s)
        return found

    def sweep_table(self, sweep_id: str, *, student: str = "", labels: str = "") -> Table:
        """A row a job: axes, then mean and spread of each subject."""
        asked = {"student": student, "labels": labels}
        return Table.model_validate(self._get(f"/sweeps/{sweep_id}/table", params=asked))

    def compare(self, *job_ids: str) -> Comparison:
        """Jobs side by side: the fields of their specs that differ, and their score cards."""
        return compare(self, job_ids)

    def results(self, job_id: str) -> Results:
        """The score card."""
        return Results.model_validate(self._get(f"/jobs/{job_id}/results"))

    def files(self, job_id: str) -> Files:
        """The files of a finished job."""
        return Files.model_validate(self._get(f"/jobs/{job_id}/artifacts"))

    def newest_sheet(self, job_id: str) -> bytes | None:
        """The newest contact sheet of a job's images, a PNG; None before there is one."""
        found = Previews.model_validate(self._get(f"/jobs/{job_id}/previews")).data
        last = next((sheets.previews[-1] for sheets in reversed(found) if sheets.previews), None)
        return None if last is None else self._bytes(f"/previews/{last.sha256}")

    def log(self, job_id: str, *, follow: bool = False) -> Iterator[LogLine]:
        """The log, line by line. follow: until the job has ended."""
        after, news = 0, None
        while True:
            page = LogPage.model_validate(self._get(f"/jobs/{job_id}/log", params={"after_seq": after}))
            yield from page.data
            after = page.last_seq
            if page.has_more:
                continue
            news = news or (self.events(job_id, after=after) if follow else iter(()))
            if all(event.kind in QUIET or event.seq <= after for event in news):  # takes events until one is a line
                return

    def event_page(self, job_id: str, *, after: int = 0) -> EventPage:
        """Events past a number, as many as fit in one answer."""
        return EventPage.model_validate(self._get(f"/jobs/{job_id}/events", params={"after_seq": after, "limit": 1000}))

    def events(self, job_id: str, *, after: int = 0) -> Iterator[Event]:
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

    def wait(self, job_id: str, *, progress: bool | None = None) -> Job:
        """Wait until a job has ended. progress: draw bars; by default in a terminal and in a notebook."""
        if progress or (progress is None and _is_seen()):
            from fadrm.progress import follow

            return follow(self, job_id)
        for _ in self.events(job_id, after=self.job(job_id).version):
            pass
        return self.job(job_id)

    def download(self, job_id: str, name: str, folder: str | Path = ".") -> Path:
        """Fetch a file of a finished job, going on where an earlier download broke off. Its hash is checked."""
        wanted = next((file for file in self.files(job_id).data if file.name == name), None)
        if wanted is None:
            raise ClientError(f"{job_id} has no file {name}.", "A job has files when it has succeeded.")
        return self.fetch(wanted, folder)

    def ask_export(self, job_id: str, form: str, *, ipc: int | None = None) -> Export:
        """Have a finished job's download written in another form, or say where it is when it is written already."""
        return Export.model_validate(self._post(f"/jobs/{job_id}/exports", {"form": form, "ipc": ipc}))

    def export(self, job_id: str, form: str, *, ipc: int | None = None) -> File:
        """A finished job's download in another form, once it is written. form: as in `exports` of a spec."""
        while (found := self.ask_export(job_id, form, ipc=ipc)).artifact is None:
            writer = self.wait(found.job or "", progress=False)
            if writer.error is not None or writer.state != "succeeded":
                told = writer.error.message if writer.error else f"{writer.id} was {writer.state}."
                raise ClientError(f"The form {form} was not written: {told}", writer.error.hint if writer.error else "")
        return found.artifact

    def link(self, job_id: str, name: str | None = None, *, hours: float = 24.0) -> Link:
        """A link to a file of a finished job that needs no login for so long. name: by default the zip of its own ipc."""
        body = {"name": name or self._package(job_id, None).name, "hours": hours}
        return Link.model_validate(self._post(f"/jobs/{job_id}/links", body))

    def download_package(self, job_id: str, folder: str | Path = ".", *, ipc: int | None = None) -> Path:
        """Fetch the zip of a finished job. ipc: of this many images per class; by default the job's own."""
        return self.fetch(self._package(job_id, ipc), folder)

    def _package(self, job_id: str, ipc: int | None) -> File:
        packages = [file for file in self.files(job_id).data if file.form == "package" and file.name.endswith(".zip")]
        wanted = next((file for file in packages if ipc in (None, file.ipc)), None)
        if wanted is None:
            there = ", ".join(str(file.ipc) for file in packages)
            hint = f"There are zips of {there} images per class." if there else "A job has files when it has succeeded."
            raise ClientError(f"{job_id} has no zip{'' if ipc is None else f' of {ipc} images per class'}.", hint)
        return wanted

    def fetch(self, wanted: File, folder: str | Path = ".", told: Callable[[int], object] | None = None) -> Path:
        """Fetch a file that a list of files named. told: is called with how many bytes are there, again and again."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / Path(wanted.name).name
        if target.is_file() and target.stat().st_size == wanted.size_bytes and _sha256(target) == wanted.sha256:
            return target
        part = target.with_name(f".{target.name}.{wanted.sha256[:12]}.part")
        patience = self._patience()
        while not self._fetch(wanted, part, patience, told):
            pass
        _check(part, wanted.sha256)
        part.replace(target)
        return target

    def _fetch(self, wanted: File, part: Path, patience: Patience, told: Callable[[int], object] | None) -> bool:
        """Fetch what is missing; False when the connection broke off on the way."""
        have = part.stat().st_size if part.exists() else 0
        rest = {"Range": f"bytes={have}-", "If-Range": f'"sha256-{wanted.sha256}"'} if have else {}
        headers = {"Accept-Encoding": "identity"} | rest
        try:
            with self._http.stream("GET", f"{self.url}{wanted.url}", headers=headers) as response:
                if response.status_code == 416:  # nothing is missing
                    return True
                _raise_for(response)
                with part.open("ab" if response.status_code == 206 else "wb") as file:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
                        patience.renew()
                        if told:
                            told(file.tell())
        except httpx.TransportError as error:
            patience.bear(self._unreachable(error))
            return False
        return True

    def _stream(self, job_id: str, after: int) -> Iterator[Event | None]:
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
                    yield Event.model_validate_json(data)

    def _pages(self, job_id: str, after: int, *, until: int) -> Iterator[Event]:
        while after < until:
            page = self.event_page(job_id, after=after)
            yield from (event for event in page.data if event.seq <= until)
            after = page.last_seq

    def _control(self, job_id: str, action: str) -> Job:
        return Job.model_validate(self._post(f"/jobs/{job_id}/{action}", None)).of(self)

    def _bytes(self, path: str) -> bytes:
        response = self._http.get(path)
        _raise_for(response)
        return response.content

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
                return response.json() if response.content else None
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
    found = _sha256(path)
    if found != sha256:
        path.unlink()
        raise Damaged(
            f"{path.name} arrived damaged: its SHA-256 is {found[:12]}..., not {sha256[:12]}....",
            "Download it again; if that does not help, look at the server's disk.",
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_seen() -> bool:
    """Whether somebody looks: a terminal, or a notebook."""
    return sys.stdout.isatty() or "ipykernel" in sys.modules
