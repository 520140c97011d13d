"""The store: a step is whole or not there, and equal steps meet in peace."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.store import MANIFEST, Manifest, Store, sha256_of_file, write_atomically, write_manifest


def _seal(folder: Path, key: str = "k") -> Manifest:
    return write_manifest(
        folder, key=key, kind="select", params={"a": 1}, needs={}, result={"x": 2.5}, environment={}, seconds=1.0
    )


def _attempt(store: Store, fence: int, text: str = "images") -> Path:
    folder = store.attempt("k", fence)
    (folder / "deep").mkdir()
    (folder / "deep" / "images.npy").write_text(text)
    return folder


def test_a_step_is_whole_once_it_is_published(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = _attempt(store, 1)
    assert not store.is_whole("k")
    sealed = _seal(folder)
    assert not store.is_whole("k")
    assert store.publish("k", folder) == sealed == store.manifest("k")
    assert store.is_whole("k") and (store.step("k") / "deep" / "images.npy").read_text() == "images"


def test_an_attempt_without_manifest_is_not_published(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(FileNotFoundError, match="not whole"):
        store.publish("k", _attempt(store, 1))


def test_who_comes_second_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for fence in (1, 2):
        folder = _attempt(store, fence, f"by {fence}")
        _seal(folder)
        store.publish("k", folder)
    assert (store.step("k") / "deep" / "images.npy").read_text() == "by 1"


def test_many_may_write_the_same_file_at_once(tmp_path: Path) -> None:
    """As two workers may that make the same picture, in containers where both have the same number."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: write_atomically(tmp_path / "a", bytes(10_000)), range(64)))
    assert (tmp_path / "a").read_bytes() == bytes(10_000)
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "a", b"1")
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_holds_the_size_and_hash_of_every_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc")
    manifest = _seal(tmp_path)
    assert list(manifest.files) == ["a.txt"]
    assert manifest.files["a.txt"].size_bytes == 3
    assert manifest.files["a.txt"].sha256 == sha256_of_file(tmp_path / "a.txt")
    assert Manifest.model_validate_json((tmp_path / MANIFEST).read_bytes()) == manifest


def test_an_attempt_begins_empty_and_checkpoints_stay(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _attempt(store, 1)
    (store.checkpoints("k") / "1.json").write_text("{}")
    assert list(store.attempt("k", 1).iterdir()) == []
    assert (store.checkpoints("k") / "1.json").is_file()
    store.forget_work("k")
    assert not (tmp_path / "work" / "k").exists()


def test_a_blob_is_found_under_its_hash(tmp_path: Path) -> None:
    store = Store(tmp_path)
    digest = store.put_blob(b"png")
    assert store.put_blob(b"png") == digest and store.blob(digest).read_bytes() == b"png"


def test_writing_leaves_no_half_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep" / "a", b"1")
    write_atomically(tmp_path / "deep" / "a", b"22")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a"]
    assert (tmp_path / "deep" / "a").read_bytes() == b"22"


def test_bytes_that_changed_are_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = _attempt(store, 1)
    _seal(folder)
    store.publish("k", folder)
    file = store.step("k") / "deep" / "images.npy"
    assert store.damaged("k") == []
    file.write_text("imagez")
    assert store.damaged("k") == store.damaged("k", only="deep/images.npy") == ["deep/images.npy"]
    file.unlink()
    assert Store(tmp_path).damaged("k") == ["deep/images.npy"]
    (store.step("k") / MANIFEST).write_text("{")
    assert store.damaged("k") == [MANIFEST]


def test_a_file_is_hashed_once(tmp_path: Path) -> None:
    store, read = Store(tmp_path), []
    folder = _attempt(store, 1)
    _seal(folder)
    store.publish("k", folder)
    store.damaged("k", tick=lambda: read.append("by its maker"))
    other = Store(tmp_path)
    for _ in range(3):
        other.damaged("k", tick=lambda: read.append("by another"))
    assert read == ["by another"]


def test_a_removed_step_is_not_there_and_can_be_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for text in ("first", "again"):
        folder = _attempt(store, 1, text)
        _seal(folder)
        store.publish("k", folder)
        assert list(store.whole_keys()) == ["k"]
        if text == "first":
            store.remove("k")
            store.remove("k")
            assert not list(store.whole_keys()) and not list((tmp_path / "removed").iterdir())
    assert (store.step("k") / "deep" / "images.npy").read_text() == "again"


def test_remains_without_manifest_are_no_step_and_in_nobodys_way(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (store.step("k") / "deep").mkdir(parents=True)
    assert not list(store.whole_keys())
    folder = _attempt(store, 1)
    _seal(folder)
    store.publish("k", folder)
    assert store.is_whole("k") and store.damaged("k") == []
