"""The service that the pages describe is the one of the app's tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.conftest import anonymous, app, client, owner, sqlite_database, sqlite_template, world
from tests.app.running import ROOT, Running, free_port
from tests.engine.pictures import COLOURS, write_set

__all__ = ["anonymous", "app", "client", "owner", "sqlite_database", "sqlite_template", "world"]
CLASSES = {"daisy": "ant", "rose": "bee", "tulip": "cat"}


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a folder of flowers is."""
    desk = tmp_path_factory.mktemp("desk")
    write_set(desk / "flowers", train=24, test=8)
    for name, colour in CLASSES.items():
        assert colour in COLOURS
        for part in ("train", "test"):
            (desk / "flowers" / part / colour).rename(desk / "flowers" / part / name)
    return desk


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What the reader's shell knows, with a server running."""
    home = tmp_path_factory.mktemp("home")
    port = str(free_port())
    running = Running(home, "--port", port, "--workers", "1", FADRM_THREADS="1", OMP_NUM_THREADS="1")
    running.until_serving()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FADRM_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
    yield clean | {
        "FADRM_HOME": str(home),
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "SERVED_AT": f"http://127.0.0.1:{port}",
    }
    running.end()
