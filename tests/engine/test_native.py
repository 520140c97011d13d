"""Our C code is compiled once for a machine, and what stands in its way costs speed alone."""

from __future__ import annotations

import os
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


def test_it_says_why_there_is_none(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert native.norms() is None and native.norms() is None
    [told] = caplog.records
    assert told.message == "norms are computed by torch: no C compiler"


@pytest.mark.parametrize("left", [b"", b"\x7fELF\x02\x01\x01"])
def test_a_library_that_a_power_cut_damaged_is_made_again(cache: Path, left: bytes) -> None:
    made = native._compiled(native.SOURCE)
    whole = made.stat().st_size
    made.write_bytes(left)
    assert native.norms() is not None and made.stat().st_size == whole


def test_what_does_not_compile_is_not_tried_again_within_the_hour(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(native, "SOURCE", tmp_path / "norms.c")
    native.SOURCE.write_text("this is no C\n")
    for _ in range(2):
        assert native.norms() is None
        native.norms.cache_clear()
    [left] = cache.iterdir()
    os.utime(left, (0, 0))
    assert native.norms() is None
    asked, remembered, again = caplog.messages
    assert "exit status" in asked and str(left) in remembered and "exit status" in again


def test_a_compiler_that_hangs_is_waited_for_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "COMPILES_S", 0.01)
    assert native.norms() is None
    [left] = cache.iterdir()
    assert left.suffix == ".failed"


def test_a_folder_that_others_can_write_is_not_trusted(cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o770)
    assert native.norms() is None and not list(cache.iterdir())


def test_a_folder_by_another_name_is_not_trusted(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    cache.symlink_to(tmp_path / "elsewhere")
    assert native.norms() is None and not list((tmp_path / "elsewhere").iterdir())


def test_a_folder_of_another_user_is_not_trusted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: cache.stat().st_uid + 1)
    assert native.norms() is None


def test_a_library_that_others_can_write_is_not_loaded(cache: Path) -> None:
    assert native.norms() is not None
    [made] = cache.iterdir()
    assert (cache.stat().st_mode & 0o777, made.stat().st_mode & 0o777) == (0o700, 0o700)
    made.chmod(0o720)
    native.norms.cache_clear()
    assert native.norms() is None


def test_where_nothing_can_be_written_it_goes_elsewhere(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(native, "gettempdir", lambda: str(tmp_path))
    assert native.norms() is not None and len(list(tmp_path.glob("fadrm-*/*.so"))) == 1
