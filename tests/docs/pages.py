"""The pages of this repository and their fenced blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MADE = ("reference", "decisions", "results")  # folders of pages that are made from code, or say why and not how


class Block(NamedTuple):
    """A fenced block."""

    page: str
    language: str
    text: str


def pages() -> list[Path]:
    """Every page that says how something is done."""
    docs = [path for path in sorted((ROOT / "docs").rglob("*.md")) if path.relative_to(ROOT).parts[1] not in MADE]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *docs]


def blocks(*languages: str) -> Iterator[Block]:
    """The blocks in these languages."""
    for path in pages():
        for language, text in FENCE.findall(path.read_text()):
            if language in languages:
                yield Block(str(path.relative_to(ROOT)), language, text)


def page(path: str) -> Iterator[Block]:
    """The blocks of one page that a reader follows."""
    return (block for block in blocks("bash", "yaml", "python") if block.page == path)


def commands(block: Block) -> Iterator[str]:
    """The lines of a block for a shell, each whole; without comments."""
    for line in re.split(r"\n|; ", block.text.replace("\\\n", " ")):
        told = re.sub(r"(^|\s)#.*$", "", line).strip()
        if told:
            yield re.sub(r"^(export )?\w+=\$\((.*)\)$", r"\2", told)
