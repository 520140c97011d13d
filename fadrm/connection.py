"""Which server, and what lets one in: FADRM_URL and FADRM_TOKEN, or what `fadrm up` left for the user who started it."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel

from fadrm.errors import Unreachable

FILE = "cli.json"


class Connection(BaseModel, frozen=True):
    """Where a server is and what lets one in."""

    url: str
    token: str


def home() -> Path:
    """The folder of this machine's server."""
    return Path(os.environ.get("FADRM_HOME") or Path.home() / ".local" / "share" / "fadrm").expanduser()


def read(folder: Path) -> Connection | None:
    """What `fadrm up` left in its home folder."""
    try:
        return Connection.model_validate_json((folder / FILE).read_bytes())
    except (OSError, ValueError):
        return None


def find(url: str = "", token: str = "") -> Connection:
    """What was given, completed. Raises Unreachable when there is no server to be found.

    The token of this machine's server is sent to no other address.
    """
    known = read(home())
    url = url or os.environ.get("FADRM_URL", "") or (known.url if known else "")
    if not url:
        looked = f"FADRM_URL is not set, and no `fadrm up` has left {FILE} in {home()}"
        raise Unreachable(
            f"There is no server to ask: {looked}.", "Start one with `fadrm up`, or set FADRM_URL and FADRM_TOKEN."
        )
    token = token or os.environ.get("FADRM_TOKEN", "")
    if not token and known and url.rstrip("/") == known.url.rstrip("/"):
        token = known.token
    return Connection(url=url, token=token)
