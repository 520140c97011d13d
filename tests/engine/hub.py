"""A stand-in for the Hugging Face Hub on this machine: what its client asks of one data set, `pets/small`."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "a" * 40


@contextmanager
def hub(root: Path) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Its address, and the path and size of every answer."""
    answers: list[tuple[str, int]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Nothing is told."""

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            file = root / path.removeprefix(f"/datasets/pets/small/resolve/{COMMIT}/")
            if path == "/api/datasets/pets/small" or path.startswith("/api/datasets/pets/small/revision/"):
                self._send(json.dumps(_listing(root, path)).encode(), {"Content-Type": "application/json"})
            elif path.startswith("/api/datasets/pets/small/tree/"):
                self._send(json.dumps(_tree(root)).encode(), {"Content-Type": "application/json"})
            elif path.startswith("/datasets/") and file.is_file():
                digest = hashlib.sha1(file.read_bytes()).hexdigest()
                self._send(file.read_bytes(), {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT})
            else:
                self._send(b"{}", {"X-Error-Code": "RepoNotFound"}, 404)

        def _send(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
            wanted = self.headers.get("Range")
            if wanted:
                first, last = map(int, wanted.removeprefix("bytes=").split("-"))
                headers = headers | {"Content-Range": f"bytes {first}-{last}/{len(body)}"}
                body, status = body[first : last + 1], 206
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)
                answers.append((self.path, len(body)))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", answers
    finally:
        server.shutdown()
        server.server_close()


def _files(root: Path) -> list[tuple[str, int, str]]:
    return [
        (path.relative_to(root).as_posix(), path.stat().st_size, hashlib.sha1(path.read_bytes()).hexdigest())
        for path in sorted(root.rglob("*.parquet"))
    ]


def _listing(root: Path, path: str) -> dict[str, Any]:
    """The files of the set: none in its own form, all as the Hub converted them."""
    asked = path.rpartition("/revision/")[2]
    files = [] if asked == path else _files(root)
    siblings = [{"rfilename": name, "size": size, "blobId": oid} for name, size, oid in files]
    return {"id": "pets/small", "sha": COMMIT, "private": False, "tags": [], "siblings": siblings}


def _tree(root: Path) -> list[dict[str, Any]]:
    return [{"type": "file", "path": name, "size": size, "oid": oid} for name, size, oid in _files(root)]
