"""Zip files whose bytes depend on their content alone."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from engine.archive import Archive


def _written(path: Path, source: Path) -> bytes:
    with Archive(path) as archive:
        archive.add("a/b.json", b"{}" * 500)
        archive.add_file("labels/x.npy", source)
    return path.read_bytes()


def test_equal_content_gives_equal_bytes_at_any_time(tmp_path: Path) -> None:
    source = tmp_path / "x"
    source.write_bytes(b"\x00\x01" * 1000)
    first = _written(tmp_path / "1.zip", source)
    os.utime(source, (1, 1))
    source.chmod(0o600)
    assert _written(tmp_path / "2.zip", source) == first


def test_text_is_compressed_and_arrays_lie_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"array" * 100)
    data = _written(tmp_path / "1.zip", tmp_path / "x")
    assert b"array" * 100 in data
    with zipfile.ZipFile(tmp_path / "1.zip") as archive:
        assert archive.getinfo("a/b.json").compress_size < 100
        assert archive.read("a/b.json") == b"{}" * 500


def test_it_ends_with_the_checksums_of_all(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"array")
    _written(tmp_path / "1.zip", tmp_path / "x")
    with zipfile.ZipFile(tmp_path / "1.zip") as archive:
        assert archive.namelist()[-1] == "SHA256SUMS"
        lines = archive.read("SHA256SUMS").decode().splitlines()
    assert lines[1] == f"{hashlib.sha256(b'array').hexdigest()}  labels/x.npy"


def test_an_archive_that_failed_has_no_checksums(tmp_path: Path) -> None:
    def fail() -> None:
        with Archive(tmp_path / "1.zip") as archive:
            archive.add("a", b"1")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with zipfile.ZipFile(tmp_path / "1.zip") as archive:
        assert archive.namelist() == ["a"]
