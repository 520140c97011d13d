"""Logs of a process of the service: one JSON object a line, fixed words in `message`, facts in fields of their own.

What is being done (a request, a step of a job) is said once, by `about`, and stands in every line that is written meanwhile.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "data"}  # `data` is Celery's
SECRETS = re.compile(r"fadrm_[\w-]{20,}|(?<=://)[^/\s@]*:[^/\s@]+(?=@)|(?<=[?&]token=)[^&\s\"']+")  # also in addresses
SECRET_NAMES = re.compile(r"authorization|cookie|passw|secret|token|csrf|dsn", re.IGNORECASE)
ONE_NAME = {"request_id": "request", "job_id": "job", "step_id": "step"}
LOUD = ("alembic", "botocore", "boto3", "celery", "httpx", "kombu", "s3transfer", "urllib3", "uvicorn")
_about: ContextVar[dict[str, Any]] = ContextVar("about", default={})  # noqa: B039 - never changed, only replaced


@contextmanager
def about(**facts: Any) -> Iterator[None]:
    """Every line that this thread or task logs meanwhile bears these facts."""
    token = _about.set(_about.get() | facts)
    try:
        yield
    finally:
        _about.reset(token)


class Facts(logging.Formatter):
    """Renders `log.info("step claimed", extra={"job": ...})`; what looks like a secret, or is called one, is masked."""

    def format(self, record: logging.LogRecord) -> str:
        facts = {ONE_NAME.get(name, name): value for name, value in vars(record).items() if name not in OWN}
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in (_about.get() | facts).items() if value is not None}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        masked = {
            name: "***" if name not in OWN and SECRET_NAMES.search(name) else value for name, value in line.items()
        }
        return SECRETS.sub("***", json.dumps(masked, default=str, ensure_ascii=False))


def readable(line: str) -> str:
    """A line of a log for people: level and words, then the facts; any other line as it is."""
    try:
        facts = json.loads(line)
        level, message, trace = facts.pop("level"), facts.pop("message"), facts.pop("trace", "")
    except (ValueError, KeyError, TypeError, AttributeError):
        return line
    rest = "".join(f" {name}={json.dumps(value)}" for name, value in facts.items() if name not in {"at", "logger"})
    return f"{facts.get('at', '')} {level} {message}{rest}" + (f"\n{trace}" if trace else "")


def configure(level: int = logging.INFO) -> None:
    """Send this process's log to stderr. Libraries speak from warnings up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Facts())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in LOUD:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
