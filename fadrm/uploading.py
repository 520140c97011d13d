"""A file on its way to the server, piece by piece: what broke off goes on, also in another process or on another day."""

from __future__ import annotations

import hashlib
import json
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from fadrm import connection
from fadrm.errors import Refused
from fadrm.models import Upload, Weights

if TYPE_CHECKING:
    from fadrm.client import Client

UPLOADS_FILE = "uploads.json"
PIECE = 8 * 2**20  # bytes
FINISH_S = 900.0  # how long a server may take to read a file
PAUSE_S = 1.0
MEDIA_TYPE = "application/offset+octet-stream"
MOVED, DAMAGED, GONE = 409, 460, 404
Told = Callable[[int, int], None]  # bytes that are there, bytes in all


@dataclass(frozen=True, slots=True)
class Notes:
    """Which upload a file was on its way as: a file in this user's folder, since the server does not know files."""

    path: Path

    def get(self, name: str) -> str | None:
        """The upload's id."""
        found = self._all().get(name)
        return found if isinstance(found, str) else None

    def put(self, name: str, arrival_id: str | None) -> None:
        """Note one, or forget it. Where nothing can be written, uploads begin anew, and that is all."""
        kept = {other: known for other, known in self._all().items() if other != name}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(kept | ({name: arrival_id} if arrival_id else {})))
        except OSError:
            pass

    def _all(self) -> dict[str, Any]:
        try:
            found = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def send_images(client: Client, path: Path, title: str, *, skip_bad: bool = False, told: Told | None = None) -> Upload:
    """Send a zip. Raises Refused, with the images that cannot be read."""
    return Upload.model_validate(_send(client, path, {"title": title, "skip_bad": str(skip_bad).lower()}, told))


def send_weights(client: Client, path: Path, title: str, network: str, *, told: Told | None = None) -> Weights:
    """Send a .safetensors file. Raises Refused when it is none, or not the network's."""
    pairs = {"title": title, "kind": "weights", "network": network}
    return Weights.model_validate(_send(client, path, pairs, told))


def _send(client: Client, path: Path, pairs: Mapping[str, str], told: Told | None) -> Any:
    """What a file became, going on where an earlier try broke off. pairs: what the server is told of it."""
    status = path.stat()
    notes = Notes(connection.home() / UPLOADS_FILE)
    wanted = " ".join(value for name, value in pairs.items() if name != "title")
    name = f"{client.url} {path.resolve()} {status.st_size} {status.st_mtime_ns} {wanted}"
    arrival = _known(client, notes.get(name)) or _begun(client, status.st_size, pairs)
    notes.put(name, arrival["id"])
    url, offset = f"/uploads/{arrival['id']}", int(arrival["offset"])
    with path.open("rb") as file:
        while offset < status.st_size:
            if told:
                told(offset, status.st_size)
            file.seek(offset)
            offset = _sent(client, url, offset, file.read(PIECE))
    if told:
        told(offset, status.st_size)
    try:
        made = _finished(client, url)
    except Refused as refused:
        if refused.problem.status == 422:  # it will not get better by being asked again
            notes.put(name, None)
        raise
    notes.put(name, None)
    return made


def _known(client: Client, arrival_id: str | None) -> dict[str, Any] | None:
    if arrival_id is None:
        return None
    try:
        found: dict[str, Any] = client.request("GET", f"/uploads/{arrival_id}")
    except Refused as refused:
        if refused.problem.status != GONE:
            raise
        return None
    return found if found["state"] != "refused" else None


def _begun(client: Client, size_bytes: int, pairs: Mapping[str, str]) -> dict[str, Any]:
    metadata = ",".join(f"{name} {b64encode(value.encode()).decode()}" for name, value in pairs.items())
    headers = {"Upload-Length": str(size_bytes), "Upload-Metadata": metadata}
    begun: dict[str, Any] = client.request("POST", "/uploads", headers=headers)
    return begun


def _sent(client: Client, url: str, offset: int, piece: bytes) -> int:
    """Where the next piece begins. One that came though its answer was lost, or damaged, is no error."""
    checksum = b64encode(hashlib.sha256(piece).digest()).decode()
    headers = {"Upload-Offset": str(offset), "Upload-Checksum": f"sha256 {checksum}", "Content-Type": MEDIA_TYPE}
    try:
        client.request("PATCH", url, headers=headers, content=piece)
    except Refused as refused:
        if refused.problem.status not in {MOVED, DAMAGED}:
            raise
        time.sleep(PAUSE_S)
    return int(client.request("GET", url)["offset"])


def _finished(client: Client, url: str) -> Any:
    """What it became; while another request reads it, this one waits."""
    deadline = time.monotonic() + FINISH_S
    while True:
        try:
            return client.request("POST", f"{url}/finish", timeout=httpx.Timeout(FINISH_S, connect=5.0))
        except Refused as refused:
            if refused.problem.status != MOVED or time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_S)
