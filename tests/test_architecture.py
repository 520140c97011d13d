"""The rooms and their doors (docs: architecture): who may import whom, and what is nowhere to be found."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("app", "engine", "fadrm", "worker")
TORCH_FREE = frozenset(
    {
        "engine.__version__",  # of the package itself, which imports nothing
        "engine.spec",
        "engine.fields",
        "engine.sources",
        "engine.params",
        "engine.plan",
        "engine.events",
        "engine.errors",
        "engine.datasets",
        "engine.folders",
        "engine.hub",
        "engine.parquet",
        "engine.networks",
        "engine.shapes",
        "engine.store",
        "engine.presets",
        "engine.scores",
        "engine.launch",
        "engine.methods",
        "engine.native",
        "engine.upright",
    }
)
OWN_TORCH = "fadrm.torch_set"  # the client's data set, for those who have torch
CONVERTER = "engine.convert"  # people run it by hand, on files that they trust
SOURCES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _imports(path: Path) -> set[str]:
    """Dotted names that a file imports; `from engine import plan` is engine.plan."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            deeper = node.module in ROOMS
            found |= {f"{node.module}.{alias.name}" if deeper else node.module for alias in node.names}
    return found


def _within(name: str, modules: frozenset[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_each_room_knows_only_the_one_below_it(path: Path) -> None:
    room = _name(path).partition(".")[0]
    if room == "engine":
        forbidden = {name for name in _imports(path) if _within(name, frozenset({"app", "worker"}))}
        if _within(_name(path), TORCH_FREE):
            forbidden |= {name for name in _imports(path) if _within(name, frozenset({"torch", "torchvision"}))}
    elif room == "fadrm":
        forbidden = {name for name in _imports(path) if _within(name, frozenset({"app", "engine", "worker"}))}
        if _name(path) != OWN_TORCH:
            forbidden |= {name for name in _imports(path) if _within(name, frozenset({"torch", "torchvision"}))}
    else:
        above = frozenset({"torch", "torchvision"} | ({"worker"} if room == "app" else set()))
        forbidden = {name for name in _imports(path) if _within(name, above)}
        forbidden |= {name for name in _imports(path) if name.startswith("engine.") and not _within(name, TORCH_FREE)}
    assert not forbidden, f"{_name(path)} imports {sorted(forbidden)}"


def test_the_service_can_be_imported_where_there_is_no_torch() -> None:
    modules = [
        name
        for name in map(_name, SOURCES)
        if (not name.startswith("engine") or _within(name, TORCH_FREE)) and name != OWN_TORCH
    ]
    program = "import sys, importlib; sys.modules.update(torch=None, torchvision=None)\n"
    program += "".join(f"importlib.import_module({name!r})\n" for name in modules if not name.endswith("__main__"))
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_nothing_runs_what_it_reads(path: Path) -> None:
    risky = r"\bpickle\b|\btorch\.load\(|\byaml\.load\(|(?<![\w.])(eval|exec)\(|shell=True"
    text = path.read_text()
    if _name(path) == CONVERTER:  # it reads tensors alone, once, and has an answer for files that hold more
        for allowed in (
            "from pickle import UnpicklingError",
            'torch.load(path, map_location="cpu", weights_only=True)',
        ):
            text = text.replace(allowed, "", 1)
    assert not re.findall(risky, text)


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_the_converter_of_weights_is_no_part_of_the_service(path: Path) -> None:
    assert CONVERTER not in _imports(path)


def test_pages_name_no_other_server() -> None:
    folders = (ROOT / "templates", ROOT / "app" / "static")
    pages = [
        path for folder in folders for path in folder.rglob("*") if path.suffix in {".html", ".css", ".js", ".svg"}
    ]
    foreign = {str(path): re.findall(r"https?://(?!www\.w3\.org/)\S*", path.read_text()) for path in pages}
    assert not {path: found for path, found in foreign.items() if found}


@pytest.mark.parametrize("path", sorted([*ROOT.glob("*.lock"), ROOT / "package-lock.json"]), ids=lambda path: path.name)
def test_locks_say_what_and_never_where(path: Path) -> None:
    assert "://" not in path.read_text()
