"""How engine processes are started."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from engine.launch import MALLOC, Request, command, environment, usual_threads
from engine.plan import Step, StepKind


def test_the_command_names_its_parent_and_threads() -> None:
    assert command(threads=3, parent=77)[1:] == ["-m", "engine", "serve", "--parent", "77", "--threads", "3"]
    assert command()[-1] == str(os.getpid())


def test_the_environment_adds_and_never_overrides() -> None:
    found = environment({"OMP_WAIT_POLICY": "active", "HOME": "/home/x"}, threads=2)
    assert found["OMP_WAIT_POLICY"] == "active" and found["HOME"] == "/home/x"
    assert found["OMP_NUM_THREADS"] == "2" and set(MALLOC) <= set(found)


def test_the_engine_is_found_from_any_folder(tmp_path: object) -> None:
    program = [sys.executable, "-c", "import engine.launch"]
    bare = {"PATH": os.environ["PATH"]}
    done = subprocess.run(program, cwd=str(tmp_path), env=environment(bare), check=False, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_an_environment_that_is_adopted_is_left_alone() -> None:
    once = environment(os.environ)
    assert environment(once) == once


def test_a_request_survives_its_journey() -> None:
    step = Step(key="k", kind=StepKind.SELECT, title="", params={}, needs={}, flop=0, size_bytes=0)
    request = Request.model_validate({"step": step, "store": "/a", "out": "/b"})
    assert Request.model_validate_json(request.model_dump_json()) == request
    assert (request.device, request.checkpoint_s, request.attempt) == ("auto", 60, 0)


@pytest.mark.parametrize(("resolution", "threads"), [(8, 1), (16, 1), (32, None), (224, None)])
def test_tiny_images_get_one_thread(resolution: int, threads: int | None) -> None:
    assert usual_threads(resolution) == threads
