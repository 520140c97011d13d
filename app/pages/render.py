"""Templates and how figures are written in them. Everything that a person reads goes through here, escaped."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, Protocol

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from app.models import User, utc_now
from app.pages.assets import ROOT, static_url, vendor_url
from app.pages.fields import title_of
from engine import __version__, scores
from engine.methods import TITLES
from engine.networks import network_title
from fadrm.words import duration, size


class Timed(Protocol):
    """Something that began, and may have ended."""

    @property
    def started_at(self) -> datetime | None: ...

    @property
    def finished_at(self) -> datetime | None: ...


@cache
def environment() -> Environment:
    """The templates, compiled at their first use."""
    jinja = Environment(
        loader=FileSystemLoader(ROOT / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.globals.update(static=static_url, vendor=vendor_url, version=__version__)
    jinja.filters.update(
        ago=ago,
        duration=short_duration,
        figure=figure,
        method_title=method_title,
        prose=prose,
        form_title=title_of,
        network_title=network_title,
        signed=signed,
        with_sign=scores.signed,
        size=size,
        sparkline=sparkline,
        took=took,
    )
    return jinja


def page(request: Request, name: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """A template as an answer, with what every page knows: who reads it, and what its forms must send."""
    identity = getattr(request.state, "identity", None)
    user: User | None = identity.user if identity else None
    known = {"user": user, "csrf": getattr(request.state, "csrf", ""), "here": request.url.path, "status": status}
    html = environment().get_template(name).render(known | context)
    return HTMLResponse(html, status, {"Cache-Control": "no-store"})


def ago(time: datetime) -> str:
    """`12 s ago`, `3 min ago`, `5 h ago`, then the day."""
    seconds = (utc_now() - time).total_seconds()
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h")):
        if seconds < limit:
            return f"{max(int(seconds), 0) // unit} {name} ago"
    return time.strftime("%-d %b %Y")


def short_duration(seconds: float | None) -> str:
    """As `duration` says it, with a tenth below ten seconds; nothing for what was not measured."""
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds < 9.95 else duration(seconds)


def took(thing: Timed) -> str:
    """From its begin to its end, or until now."""
    if thing.started_at is None:
        return "–"
    return duration(((thing.finished_at or utc_now()) - thing.started_at).total_seconds())


def sparkline(samples: Sequence[Sequence[float]], index: int, width: int = 120, height: int = 24) -> str:
    """The points of a line through one of the shares (0 to 1) of each sample, in a box of that size, the latest at its right."""
    last = max(len(samples) - 1, 1)
    points = (
        f"{width * x / last:.1f},{1 + (height - 2) * (1 - sample[index]):.1f}" for x, sample in enumerate(samples)
    )
    return " ".join(points)


def figure(value: float) -> str:
    """A loss or an accuracy, four digits."""
    return f"{value:.4g}"


def signed(value: float | None) -> str:
    """A difference in points, with a real sign; a dash where there is none."""
    if value is None:
        return "–"
    return scores.signed(value) if abs(value) >= 0.05 else "0.0"


def prose(text: str) -> Markup:
    """A help text of the code as HTML: what stands between backticks is code."""
    parts = [
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part)
        for index, part in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)


def method_title(method: str) -> str:
    """`FADRM+` for `fadrm+`. A name that is not known stays as it is."""
    return TITLES.get(method, method)
