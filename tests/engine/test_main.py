"""The engine by itself on the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.__main__ import main, read_spec
from engine.errors import SpecInvalid
from engine.launch import EXIT_DRAINED, EXIT_FAILED, environment
from engine.plan import Plan
from engine.presets import PRESETS
from engine.spec import JobSpec
from engine.store import Store
from tests.engine.jobs import SPEC, Job


def _written(folder: Path, spec: JobSpec) -> Path:
    path = folder / "spec.json"
    path.write_text(spec.model_dump_json())
    return path


def test_a_plan_is_printed_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str], job: Job) -> None:
    assert main(["plan", str(_written(tmp_path, SPEC))]) == 0
    assert Plan.model_validate_json(capsys.readouterr().out) == job.plan


def test_a_spec_may_be_json_yaml_or_a_preset(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("ipc: 3\nmethod:\n  method: rded\n")
    assert read_spec(str(tmp_path / "spec.yaml")).ipc == 3
    assert read_spec(str(_written(tmp_path, SPEC))) == SPEC
    assert read_spec("demo") == PRESETS["demo"].spec


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"ipcs": 3}', "ipcs: Extra inputs are not permitted"),
        ('{"ipc": 0, "seed": -1}', "ipc: Input should be greater than or equal to 1; seed"),
        ('{"ipc": ', "cannot be parsed"),
    ],
)
def test_a_mistake_in_a_spec_is_one_sentence(
    tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "spec.json").write_text(text)
    assert main(["plan", str(tmp_path / "spec.json")]) == EXIT_FAILED
    assert words in capsys.readouterr().err


def test_broken_yaml_is_a_mistake_in_the_spec_too(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("ipc: [3\nseed: ")
    with pytest.raises(SpecInvalid, match="cannot be parsed"):
        read_spec(str(tmp_path / "spec.yaml"))


def test_a_spec_that_is_not_there_is_answered_with_the_presets() -> None:
    with pytest.raises(SpecInvalid, match="no file and no preset") as caught:
        read_spec("demon")
    assert "demo" in caught.value.report.hint


def test_what_the_data_set_cannot_give_is_said_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = SPEC.model_copy(update={"ipc": 1000})
    assert main(["run", str(_written(tmp_path, spec)), "--out", str(tmp_path)]) == EXIT_FAILED
    assert "Choose an ipc of at most" in capsys.readouterr().err


@pytest.mark.slow
def test_a_job_that_is_stopped_goes_on_when_it_is_started_again(tmp_path: Path) -> None:
    longer = SPEC.method.model_copy(update={"budgets": (100, 100)})
    spec = _written(tmp_path, SPEC.model_copy(update={"method": longer}))
    words = [
        sys.executable,
        "-m",
        "engine",
        "run",
        str(spec),
        "--out",
        str(tmp_path),
        "--device",
        "cpu",
        "--threads",
        "1",
    ]
    process = subprocess.Popen(
        words, env=environment(os.environ), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "recover.loss" in line:
            process.send_signal(signal.SIGTERM)
            break
    _, rest = process.communicate(timeout=200)
    assert process.returncode == EXIT_DRAINED and "run the same command to go on" in rest

    done = subprocess.run(words, env=environment(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Train teacher" not in done.stderr and "going on from" in done.stderr
    assert "Distilled images" in done.stdout and list(tmp_path.glob("fadrm-*.zip"))
    assert not (tmp_path / "store" / "work").exists() or not list((tmp_path / "store" / "work").iterdir())


def test_planning_does_without_torch(tmp_path: Path) -> None:
    spec = str(_written(tmp_path, SPEC))
    program = f"import sys; sys.modules['torch'] = None; from engine.__main__ import main; main(['plan', {spec!r}])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"]
    assert Store(tmp_path).root == tmp_path
