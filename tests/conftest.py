"""Strictness for every test: no network beyond this machine, no home but its own, and nothing skipped that must run here."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

REQUIRED = frozenset(filter(None, os.environ.get("FADRM_TEST_REQUIRE", "").split(",")))


class NetworkUsed(BaseException):
    """A test reached for another machine. Not an Exception: nothing on the way may answer it with a retry."""


def _is_local(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host in {"", "localhost"}
    return address.is_loopback or address.is_unspecified


def _stay_local(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):  # else it is the path of a unix socket
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0] or ""
    else:
        return
    if not _is_local(host.decode() if isinstance(host, bytes) else host):
        raise NetworkUsed(f"a test reaches for {host}: only this machine may be used")


def pytest_configure() -> None:
    sys.addaudithook(_stay_local)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client notes, and whatever else goes to a server's home, does not go to that of who runs the tests."""
    monkeypatch.setenv("FADRM_HOME", str(tmp_path / "home"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where FADRM_TEST_REQUIRE=browser,postgres names a test's mark, skipping it is failing."""
    report = yield
    missing = REQUIRED & {mark.name for mark in item.iter_markers()}
    if report.skipped and missing and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid} was skipped, but {', '.join(sorted(missing))} must be tested here: {report.longrepr}"
        )
    return report
