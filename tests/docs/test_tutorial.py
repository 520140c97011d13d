"""The tutorial, followed word by word against a real server: the notebook's cells, the page's commands, the client's page."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.app.running import ROOT
from tests.docs.conftest import CLASSES
from tests.docs.pages import page

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.chaos, pytest.mark.timeout(900)]


def test_the_notebook_runs_cell_by_cell(
    desk: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk)
    for name in ("FADRM_URL", "FADRM_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FADRM_HOME", environment["FADRM_HOME"])
    notebook = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text())
    space: dict[str, Any] = {}
    shown = [run("".join(cell["source"]), space) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert space["uploaded"].classes == list(CLASSES) and space["uploaded"].train_per_class == [24] * 3
    assert space["job"].state == "succeeded" and len(space["dataset"]) == 30
    pictures = [value._repr_html_() for value in shown if hasattr(value, "_repr_html_")]
    assert sum("data:image/png" in picture for picture in pictures) == 2  # of the job, and of the set
    assert any("Random real images" in picture for picture in pictures)


def run(source: str, space: dict[str, Any]) -> Any:
    """A cell; what its last line shows."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), space)
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), space) if isinstance(last, ast.Expr) else None


def test_the_page_is_followed_word_by_word(desk: Path, environment: dict[str, str]) -> None:
    script = []
    for block in page("docs/tutorial.md"):
        if block.language == "yaml":
            script.append(f"cat >job.yaml <<'END'\n{block.text}END\nsed -i \"s/ID/$(cat id)/\" job.yaml")
        elif block.language == "bash" and "make up" not in block.text:
            lines = [line for line in block.text.splitlines() if not line.startswith("source ")]
            script.append("\n".join(lines).replace("fadrm upload flowers.zip", KEEP_ID))
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(script)],
        cwd=desk,
        env=environment,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "3 classes, 72 images for training, 24 for testing" in told
    assert ("Random real images" in told and "steps are to do" in told) or "in the store already" in told
    assert re.search(r"\d+\.\d+ %", told.rpartition("Page ")[2]), told  # train.py's accuracy


KEEP_ID = 'fadrm upload flowers.zip | tee uploaded; grep -o "[0-9a-f]\\{64\\}" uploaded >id'


def test_the_page_about_python_runs_from_top_to_bottom(
    desk: Path, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    program = "\n".join(block.text for block in page("docs/howto/python.md"))
    quick = '{"ipc": 1, "method": {"budgets": [4, 4, 4, 4]}, "labels": {"epochs": 2}, "evaluation": {"runs": 1}}'
    program = program.replace('"overrides": {"ipc": 1}', f'"overrides": {quick}')
    program = program.replace('{"ipc": 1, "seed": 1}', f'{quick[:-1]}, "seed": 1}}').replace('{"ipc": 1}', quick)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=desk,
        env=environment,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "/spec/ipc" in done.stdout and "Random real images" in done.stdout and "seed" in done.stdout
