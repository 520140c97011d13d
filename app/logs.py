"""Logs of a process of the service: one line each, fixed words, then the facts as name=value (JSON, so that no value breaks a line)."""

from __future__ import annotations

import json
import logging
import re
import sys

OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
SECRETS = re.compile(r"fadrm_[\w-]{20,}|(?<=://)[^/\s@]*:[^/\s@]+(?=@)")  # tokens, and passwords in addresses
LOUD = ("alembic", "celery", "httpx", "kombu", "uvicorn")


class Facts(logging.Formatter):
    """Renders `log.info("step claimed", extra={"job": ...})`; what looks like a secret is masked."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        facts = {name: value for name, value in vars(record).items() if name not in OWN}
        shown = "".join(f" {name}={json.dumps(value, default=str)}" for name, value in facts.items() if name != "data")
        head, newline, trace = super().format(record).partition("\n")
        return SECRETS.sub("***", f"{head}{shown}{newline}{trace}")


def configure(level: int = logging.INFO) -> None:
    """Send this process's log to stderr. Libraries speak from warnings up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Facts())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in LOUD:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
