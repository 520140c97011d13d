"""Our C code is compiled once for a machine, and what stands in its way costs speed alone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import native


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native, "OPTIONS", ("-O0", *native.OPTIONS[1:]))  # compiled in a moment
    native.norms.cache_clear()
    yield tmp_path / "fadrm"
    native.norms.cache_clear()


def test_it_is_compiled_once(cache: Path) -> None:
    assert native.norms() is not None
    [made] = cache.iterdir()
    before = made.stat().st_mtime_ns
    time.sleep(0.01)
    native.norms.cache_clear()
    assert native.norms() is not None and made.stat().st_mtime_ns == before


def test_another_cpu_has_another_library(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native.norms()
    monkeypatch.setattr(native, "_cpu", lambda: "another")
    native.norms.cache_clear()
    native.norms()
    assert len(list(cache.iterdir())) == 2


def test_without_a_compiler_there_is_none(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert native.norms() is None and not list(cache.glob("*"))


def test_what_does_not_compile_leaves_nothing(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "norms.c"
    source.write_text("this is no C\n")
    monkeypatch.setattr(native, "SOURCE", source)
    assert native.norms() is None and not list(cache.iterdir())


def test_where_nothing_can_be_written_it_goes_elsewhere(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(native, "gettempdir", lambda: str(tmp_path))
    assert native.norms() is not None and len(list(tmp_path.glob("fadrm-*/*.so"))) == 1
