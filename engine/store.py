"""The store: finished steps under the key of what they are made from, and blobs under their own hash.

steps/<key>/...          what a step left; its manifest.json was written last, so its existence means that the step is whole
work/<key>/attempt-<n>/  what an attempt is writing
work/<key>/checkpoints/  what the next attempt goes on from
removed/<key>-<n>/       a step that is being deleted, or whose bytes were not those that were written
blobs/<sha256>           previews: immutable, shown while a step still runs
uploads/<sha256>/        what somebody sent: an archive of images, unpacked (images/<class>/..., title.txt), or weights.safetensors
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

MANIFEST = "manifest.json"
CHUNK_BYTES = 8 * 2**20


class FileEntry(BaseModel, frozen=True):
    """One file of a step's output."""

    size_bytes: int
    sha256: str


class Manifest(BaseModel, frozen=True):
    """What a whole step is: made from what, by what, holding what."""

    key: str
    kind: str
    params: dict[str, Any]
    needs: dict[str, str]  # role -> key of the step that plays it
    result: dict[str, Any]  # the step's figures: accuracies, counts, losses
    files: dict[str, FileEntry]  # path inside the folder -> entry
    environment: dict[str, str]  # versions, device, precision
    seconds: float
    finished_at: datetime

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(entry.size_bytes for entry in self.files.values())


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def temporary(path: Path) -> Path:
    """A name beside this one that no other writer has, in this process or in another container with the same numbers."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")


def write_atomically(path: Path, data: bytes) -> None:
    """The file is there whole, and on disk, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = temporary(path)
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:  # a full disk should not be made fuller
        part.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Put a file's bytes, or a folder's renames, on the disk: they survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_manifest(  # noqa: PLR0913 - a manifest has that many facts
    folder: Path,
    *,
    key: str,
    kind: str,
    params: dict[str, Any],
    needs: dict[str, str],
    result: dict[str, Any],
    environment: dict[str, str],
    seconds: float,
) -> Manifest:
    """Seal a step's folder: the size and hash of every file in it, written last, after the files are on disk."""
    for path in folder.rglob("*"):
        sync(path)
    files = {
        str(path.relative_to(folder)): FileEntry(size_bytes=path.stat().st_size, sha256=sha256_of_file(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    manifest = Manifest(
        key=key,
        kind=kind,
        params=params,
        needs=needs,
        result=result,
        files=files,
        environment=environment,
        seconds=seconds,
        finished_at=datetime.now(UTC),
    )
    write_atomically(folder / MANIFEST, manifest.model_dump_json(indent=1).encode())
    return manifest


def _mark(path: Path) -> tuple[str, int, int, int]:
    """What changes when a file is written again. Raises FileNotFoundError."""
    found = path.stat()
    return str(path), found.st_size, found.st_mtime_ns, found.st_ino


def _nothing() -> None:
    """Nobody wants to be called between two chunks."""


class Store:
    """A folder, local or shared between machines."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._sound: set[tuple[str, int, int, int]] = set()  # files whose bytes this process has seen to be right

    @property
    def uploads(self) -> Path:
        """Where unpacked uploads lie, each under the SHA-256 of its archive."""
        return self.root / "uploads"

    def step(self, key: str) -> Path:
        """Where a whole step lies."""
        return self.root / "steps" / key

    def is_whole(self, key: str) -> bool:
        """Whether this step was finished by anyone, ever."""
        return self.is_at_hand(key)

    def manifest(self, key: str) -> Manifest:
        """The manifest of a whole step. Raises FileNotFoundError when it is not whole."""
        return Manifest.model_validate_json((self.step(key) / MANIFEST).read_bytes())

    def attempt(self, key: str, name: int | str) -> Path:
        """An empty folder for one attempt to write in. name: unlike that of any other attempt at this key."""
        folder = self.root / "work" / key / f"attempt-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def checkpoints(self, key: str) -> Path:
        """Where the attempts of a step leave checkpoints for each other."""
        folder = self.root / "work" / key / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def is_at_hand(self, key: str) -> bool:
        """Whether a whole step lies in this very folder."""
        return (self.step(key) / MANIFEST).is_file()

    def publish(self, key: str, attempt: Path, tick: Callable[[], None] = _nothing) -> Manifest:  # noqa: ARG002
        """Move a sealed attempt to its place. Harmless when somebody was first: equal keys mean equal content.

        tick: called now and then where that takes long, and may raise.
        """
        if not (attempt / MANIFEST).is_file():
            raise FileNotFoundError(f"{attempt} has no manifest: it is not whole")
        self._place(key, attempt)
        return self.manifest(key)

    def _place(self, key: str, attempt: Path) -> None:
        target = self.step(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir() and not self.is_at_hand(key):
            self._drop(key)  # remains: nothing that a crash leaves, but a broken disk may
        try:
            attempt.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            self._sound.update(_mark(path) for path in target.rglob("*") if path.is_file())  # hashed when it was sealed
        sync(target.parent)

    def damaged(self, key: str, *, only: str | None = None, tick: Callable[[], None] = _nothing) -> list[str]:
        """The files of a whole step whose bytes are not those that were written; none of them is read twice.

        A file is hashed once a process, as long as its size, time and inode stay. only: look at this file alone.
        tick: called after each 8 MiB, and may raise. Raises FileNotFoundError when the step is not whole.
        """
        try:
            folder, entries = self.step(key), self.manifest(key).files
        except ValueError:
            return [MANIFEST]
        wanted = entries if only is None else {only: entries[only]}
        return [name for name, entry in wanted.items() if not self._is_sound(folder / name, entry, tick)]

    def _is_sound(self, path: Path, entry: FileEntry, tick: Callable[[], None]) -> bool:
        try:
            mark = _mark(path)
        except FileNotFoundError:
            return False
        if mark in self._sound:
            return True
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                tick()
        if digest.hexdigest() != entry.sha256:
            return False
        self._sound.add(mark)
        return True

    def remove(self, key: str) -> None:
        """Let a step be whole no longer, at once, then delete its files. Harmless when it is not there."""
        self._drop(key)

    def _drop(self, key: str) -> None:
        doomed = self.root / "removed" / f"{key}-{uuid.uuid4().hex[:8]}"
        doomed.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.step(key).rename(doomed)
        except FileNotFoundError:
            return
        shutil.rmtree(doomed, ignore_errors=True)

    def whole_keys(self) -> Iterator[str]:
        """The keys of all whole steps, in no order."""
        folder = self.root / "steps"
        if folder.is_dir():
            yield from (entry.name for entry in os.scandir(folder) if self.is_whole(entry.name))

    def forget_work(self, key: str) -> None:
        """Remove what the attempts of a published step left behind."""
        shutil.rmtree(self.root / "work" / key, ignore_errors=True)

    def put_blob(self, data: bytes) -> str:
        """Keep bytes under their own hash, which is returned."""
        digest = hashlib.sha256(data).hexdigest()
        path = self.blob(digest)
        if not path.exists():
            write_atomically(path, data)
        return digest

    def blob(self, digest: str) -> Path:
        """Where a blob lies, or would lie."""
        return self.root / "blobs" / digest

    def remove_blob(self, digest: str) -> None:
        """Harmless when it is not there."""
        (self.root / "blobs" / digest).unlink(missing_ok=True)

    def upload(self, upload_id: str) -> Path:
        """Where an upload lies, or would lie."""
        return self.uploads / upload_id

    def keep_upload(self, upload_id: str, made: Path) -> None:
        """Let others have an upload before it is known, which is moved to its place next. In a folder they have it."""

    def remove_upload(self, upload_id: str, aside: Path) -> None:  # noqa: ARG002 - for those who keep it elsewhere too
        """Remove an upload that lies aside now. Harmless when nothing is there."""
        shutil.rmtree(aside, ignore_errors=True)

    def keep_work(self, key: str, tick: Callable[[], None] = _nothing) -> None:
        """Let others have the checkpoints of a step that nobody works at now. In a folder they have them."""

    def bring_work(self, key: str, tick: Callable[[], None] = _nothing) -> None:
        """Have the checkpoints that others left. In a folder they are there."""

    def check(self) -> None:
        """Raises OSError when it cannot be written."""
        self.root.mkdir(parents=True, exist_ok=True)
        probe = temporary(self.root / "probe")
        probe.write_bytes(b"")
        probe.unlink()

    def away(self) -> str | None:
        """Why nothing should begin with it now, in words. A folder is always there."""
        return None

    def trim(self) -> None:
        """Let go of what is only a copy. A folder has none."""
