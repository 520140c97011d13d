"""The files that the browser loads: our own, and those of others that are named here. Nothing else is served.

Both have addresses that change with their content, so browsers may keep them for ever.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from mimetypes import guess_type
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse

from app.errors import NotFound

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "app" / "static"
MODULES = ROOT / "node_modules"
FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendored:
    """One file of a library, pinned in package-lock.json."""

    package: str
    version: str
    file: str

    @property
    def url(self) -> str:
        return f"/static/vendor/{self.package}@{self.version}/{self.file}"

    @property
    def path(self) -> Path:
        return MODULES / self.package / self.file


VENDORED: dict[str, Vendored] = {
    "uplot.js": Vendored(package="uplot", version="1.6.32", file="dist/uPlot.esm.js"),
    "uplot.css": Vendored(package="uplot", version="1.6.32", file="dist/uPlot.min.css"),
    "swagger.js": Vendored(package="swagger-ui-dist", version="5.35.0", file="swagger-ui-bundle.js"),
    "swagger.css": Vendored(package="swagger-ui-dist", version="5.35.0", file="swagger-ui.css"),
}


@cache
def own_files() -> dict[str, Path]:
    """Name -> file of everything in app/static."""
    return {path.relative_to(STATIC).as_posix(): path for path in sorted(STATIC.rglob("*")) if path.is_file()}


@cache
def own_digest() -> str:
    """Changes when any of our files does: modules import each other by relative addresses, so they share one."""
    digest = hashlib.sha256()
    for name, path in own_files().items():
        digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def static_url(name: str) -> str:
    """The address of one of our files. Raises KeyError when there is none: a template names what does not exist."""
    return f"/static/{own_digest()}/{own_files()[name].relative_to(STATIC).as_posix()}"


def vendor_url(name: str) -> str:
    """The address of a library's file, by its name in `VENDORED`."""
    return VENDORED[name].url


def router() -> APIRouter:
    """Our files and the libraries'. Open to everybody: the page to log in needs them."""
    routes = APIRouter(include_in_schema=False)
    vendored = {file.url: file.path for file in VENDORED.values()}

    @routes.get("/static/vendor/{name:path}")
    def vendor_file(name: str) -> FileResponse:
        return _file(vendored.get(f"/static/vendor/{name}"))

    @routes.get("/static/{digest}/{name:path}")
    def static_file(digest: str, name: str) -> FileResponse:
        return _file(own_files().get(name) if digest == own_digest() else None)

    return routes


def _file(path: Path | None) -> FileResponse:
    if path is None or not path.is_file():
        raise NotFound("There is no such file.", hint="Reload the page; where a library is missing, run `make env`.")
    return FileResponse(path, media_type=guess_type(path.name)[0], headers=FOR_EVER)
