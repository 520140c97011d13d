"""The pages that say how something is done, typed in from top to bottom at a real server."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import Block, page

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.chaos, pytest.mark.timeout(900)]

QUICK = {"ipc": 1, "method": {"budgets": [4, 4, 4, 4]}, "labels": {"epochs": 2}, "evaluation": {"runs": 1}}
LONG = {"seed": 7, "method": {"budgets": [100_000, 100_000]}}
NOT_HERE = ("docker compose", "make ", "cp .env", "source ", "fadrm login")  # lines for another machine, or that ask
NAMES = re.compile(r"(?<![\w$/-])(JOB|OTHER|SWEEP|ID)\b(?!=)")  # what a reader puts their own in the place of


def test_the_readme(desk: Path, environment: dict[str, str]) -> None:
    upload = 'fadrm upload flowers.zip | tee uploaded; ID=$(grep -o "[0-9a-f]\\{64\\}" uploaded)'
    [spec] = [block.text for block in page("README.md") if block.language == "yaml"]
    quick = spec.replace("ipc: 10", "ipc: 1") + "labels: {epochs: 2}\nevaluation: {runs: 1}\n"
    quick = quick.replace("{method: fadrm}", "{method: fadrm, budgets: [4, 4, 4, 4]}")
    quick = quick.replace("network: resnet18", "network: resnet18_w16, epochs: 2").replace(
        "resolution: 64", "resolution: 16"
    )
    uploaded = f'{upload}\n{written("job.yaml", quick)}\nsed -i "s/ID/$ID/" job.yaml'
    script = re.sub(r"^fadrm upload flowers.zip.*$", lambda _: uploaded, typed("README.md"), flags=re.MULTILINE)
    script = script.replace("fadrm download $JOB", f"{newest('JOB', 'fadrm list')}\nfadrm download $JOB")
    told = done(script, desk, environment)
    assert "Random real images" in told and "steps are to do" in told


def test_the_command_line(desk: Path, environment: dict[str, str]) -> None:
    prepared = [written("job.yaml", demo(QUICK)), written("other.yaml", demo(QUICK | {"seed": 1}))]
    prepared += [f"{name}=$(fadrm submit {name.lower()}.yaml); fadrm watch ${name}" for name in ("JOB", "OTHER")]
    script = typed("docs/howto/command-line.md")
    script = script.replace(
        "fadrm pause", f"FIRST=$JOB\n{written('long.yaml', demo(LONG))}\nJOB=$(fadrm submit long.yaml)\nfadrm pause"
    )
    script = script.replace("fadrm retry $JOB", "fadrm retry $JOB\nfadrm cancel $JOB\nJOB=$FIRST")
    told = done("\n".join([*prepared, script]), desk, environment)
    assert "Flowers, second try" in told and told.count("Random real images") >= 2


def test_the_api(desk: Path, environment: dict[str, str]) -> None:
    script = typed("docs/howto/api.md").replace("http://127.0.0.1:8080", environment["SERVED_AT"])
    told = done(script.replace("curl ", "curl --silent --show-error --fail "), desk, environment)
    assert '"urls"' in told and '"next_cursor"' in told and '"demo"' in told


def test_sweeps(desk: Path, environment: dict[str, str]) -> None:
    [spec] = [block.text for block in page("docs/howto/sweep.md") if block.language == "yaml"]
    quick = spec.replace("preset: demo", f"preset: demo\noverrides: {json.dumps(QUICK)}").replace(
        "[200, 200]", "[4, 4]"
    )
    found = newest("SWEEP", "fadrm sweep list")
    script = typed("docs/howto/sweep.md").replace("fadrm sweep show", f"{found}\nfadrm sweep show", 1)
    script = script.replace("fadrm sweep cancel $SWEEP", "fadrm sweep cancel $SWEEP || test $? -eq 3")  # it has ended
    told = done(f"{written('sweep.yaml', quick)}\n{script}", desk, environment)
    assert "alpha" in told and "two" in told


def test_people_and_administration(desk: Path, environment: dict[str, str]) -> None:
    people, tokens = typed("docs/people.md"), typed("docs/administration.md")
    found = newest("ID", "fadrm token list", "[0]")
    tokens = tokens.replace("fadrm token revoke", f"{found}\nfadrm token revoke").replace("--user mei", "--user yuki")
    told = done(f"{people}\nfadrm admin user add yuki\n{tokens}", desk, environment)
    assert "mei" in told and "vision" in told


def newest(name: str, command: str, place: str = "['data'][0]") -> str:
    """A line that puts the id of what a command lists first into a variable."""
    return f"{name}=$({command} --json | python -c \"import json, sys; print(json.load(sys.stdin){place}['id'])\")"


def typed(path: str) -> str:
    """A page's commands for a shell, with variables where a reader puts in their own."""
    return "\n".join(NAMES.sub(r"$\1", text(block)) for block in page(path) if block.language == "bash")


def text(block: Block) -> str:
    """Without what is for another machine, or asks something."""
    if "example.org" in block.text:
        return ""
    return "\n".join(line for line in block.text.splitlines() if not any(word in line for word in NOT_HERE))


def demo(changes: dict[str, object]) -> str:
    return json.dumps({"preset": "demo", "overrides": changes})


def written(name: str, value: str) -> str:
    return f"cat >{name} <<'END'\n{value}\nEND"


def done(script: str, desk: Path, environment: dict[str, str]) -> str:
    """All that was told; the first command that fails ends it."""
    ran = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=desk,
        env=environment | {"HOME": str(desk)},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    told = ran.stdout + ran.stderr
    assert ran.returncode == 0, f"{script}\n---\n{told[-4000:]}"
    return told
