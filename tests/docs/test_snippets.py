"""Every command and snippet on the pages is one that works: commands are known, specs are valid, links lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from app import cli
from app.planning import JobIn
from app.sweeps import SweepIn
from tests.docs.pages import ROOT, Block, blocks, commands, pages

SHELL = [(block.page, line) for block in blocks("bash") for line in commands(block)]
FADRM = [(page, line) for page, line in SHELL if re.search(r"(^|[\s(])fadrm ", line)]
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def test_there_are_pages_with_snippets() -> None:
    assert len(pages()) > 15 and len(FADRM) > 20


@pytest.mark.parametrize(("page", "line"), FADRM, ids=lambda value: value[:60])
def test_every_command_is_one_that_fadrm_knows(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)
    words = words[words.index("fadrm") + 1 :]
    ends = [place for place, word in enumerate(words) if word in {"|", ">", "&&", "&", "||"}]
    words = words[: min(ends, default=len(words))]
    for word in words:
        if word.endswith((".yaml", ".json", ".zip")):
            (tmp_path / word).touch()
    parse(typer.main.get_command(cli.app), words)


def parse(command: Any, words: list[str]) -> None:
    """Take the words as the command would, and do nothing. Raises what the command line tells as wrong usage."""
    if words[0].startswith("-"):
        assert words[0] in {name for param in command.params for name in param.opts}
        return
    while hasattr(command, "commands"):
        assert words and words[0] in command.commands, f"there is no command {words[:1]}"
        command, words = command.commands[words[0]], words[1:]
    command.make_context("fadrm", words)


@pytest.mark.parametrize(("page", "line"), [pair for pair in SHELL if pair[1].startswith("make ")])
def test_every_target_is_in_the_makefile(page: str, line: str) -> None:
    words = [word for word in shlex.split(line)[1:] if "=" not in word]
    assert set(words) <= TARGETS


@pytest.mark.parametrize("block", list(blocks("yaml")), ids=lambda block: block.page)
def test_every_spec_is_one_that_the_server_takes(block: Block) -> None:
    if block.text.lstrip().startswith("{"):
        return
    value = yaml.safe_load(re.sub(r"\bid: [\w.]+", f"id: {'ab' * 32}", block.text))  # the reader's own
    if "axes" in value:
        SweepIn.model_validate(value)
    elif {"spec", "preset"} & value.keys():
        JobIn.model_validate(value)
    else:
        JobIn.model_validate({"spec": value})


@pytest.mark.parametrize("block", list(blocks("python")), ids=lambda block: block.page)
def test_every_python_snippet_is_python(block: Block) -> None:
    ast.parse(block.text)


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not missing


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    docs = {path.relative_to(ROOT / "docs").as_posix() for path in pages_and_reference()}
    assert docs - set(LINK.findall(index)) == {"README.md"}


def pages_and_reference() -> list[Path]:
    """What a reader may look for in the index; decisions and rows of results are reached from their own pages."""
    folders = (ROOT / "docs", ROOT / "docs" / "howto", ROOT / "docs" / "reference")
    return [path for folder in folders for path in folder.glob("*.md")]
