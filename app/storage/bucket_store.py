"""A store in a bucket. Its folder is what this machine has at hand of it: the engine reads files, wherever they are kept.

whole/<key>              the manifest of a whole step: written last, and only where there is none
steps/<key>/<sha256>     its files, by what is in them: two that publish one step at once leave each other's alone
blobs/<sha256>           contact sheets
uploads/<id>             what somebody sent, unpacked, as a tar file
work/<key>               checkpoints of a step that nobody works at, as a tar file
"""

from __future__ import annotations

import logging
import shutil
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from app.storage.bucket import Bucket, BucketAway
from engine.store import MANIFEST, FileEntry, Manifest, Store, write_atomically

WHOLE, STEPS, BLOBS, UPLOADS, WORK = "whole/", "steps/", "blobs/", "uploads/", "work/"
SEEN_S = 30.0  # a step that was whole so long ago is not asked for again
PATIENCE_S = 600.0  # for a bucket that does not answer while something is published
PAUSES_S = (0.5, 30.0)  # between two tries, at first and at most
WORK_BYTES = 2**30  # checkpoints that are larger are left where they are: the step begins anew elsewhere
IN_USE_S = 3600.0  # what was used so lately is not let go of
ASKED_S = 5.0  # whether the bucket answers is asked this often
LOOK_S = 60.0  # between two looks at what lies here
Answer = TypeVar("Answer")
log = logging.getLogger(__name__)


def _nothing() -> None:
    """Nobody wants to be called in between."""


class BucketStore(Store):
    """The store of one bucket, and the folder of this machine. What is written is told to nobody before it is there."""

    def __init__(self, root: Path, bucket: Bucket, *, most_bytes: int = 0, patience_s: float = PATIENCE_S) -> None:
        super().__init__(root)
        self.bucket = bucket
        self._most_bytes, self._patience_s = most_bytes, patience_s
        self._seen: dict[str, float] = {}  # key of a step -> when it was whole, s of the monotonic clock
        self._looked = self._asked = float("-inf")
        self._away: str | None = None

    def is_whole(self, key: str) -> bool:
        """Whether the bucket has this step. Raises BucketAway."""
        if time.monotonic() - self._seen.get(key, float("-inf")) < SEEN_S:
            return True
        if not self.bucket.exists(WHOLE + key):
            return False
        self._seen[key] = time.monotonic()
        return True

    def manifest(self, key: str) -> Manifest:
        """The manifest of a whole step. Raises FileNotFoundError, BucketAway."""
        return Manifest.model_validate_json(self.bucket.read(WHOLE + key))

    def publish(self, key: str, attempt: Path, tick: Callable[[], None] = _nothing) -> Manifest:
        """First the files, then the manifest, and only if nobody was first. Raises BucketAway after some patience."""
        sealed = (attempt / MANIFEST).read_bytes()
        if not self._kept(lambda: self.bucket.exists(WHOLE + key), tick):
            for name, entry in Manifest.model_validate_json(sealed).files.items():
                self._send(attempt / name, f"{STEPS}{key}/{entry.sha256}", tick)
            self._kept(lambda: self.bucket.write(WHOLE + key, sealed, once=True), tick)
        self._seen[key] = time.monotonic()
        self._place(key, attempt)
        return self._kept(lambda: self.manifest(key), tick)

    def damaged(self, key: str, *, only: str | None = None, tick: Callable[[], None] = _nothing) -> list[str]:
        """As of a folder, once what is not at hand, or is wrong here, was fetched. Raises FileNotFoundError, BucketAway."""
        try:
            manifest = self.manifest(key)
        except ValueError:
            return [MANIFEST]
        folder = self.step(key)
        if self.is_at_hand(key) and super().manifest(key) != manifest:
            self._drop(key)  # it was removed, and made again elsewhere
        wanted = manifest.files if only is None else {only: manifest.files[only]}
        lost = [
            name
            for name, entry in wanted.items()
            if not self._is_sound(folder / name, entry, tick) and not self._fetched(key, name, entry, tick)
        ]
        if only is None and not lost:
            write_atomically(folder / MANIFEST, manifest.model_dump_json(indent=1).encode())  # also: used just now
        return lost

    def _fetched(self, key: str, name: str, entry: FileEntry, tick: Callable[[], None]) -> bool:
        """Whether a file was got whose bytes are those that were written; it is in its place then."""
        path = self.step(key) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            digest = self.bucket.download(f"{STEPS}{key}/{entry.sha256}", part, tick)
            if digest != entry.sha256:
                return False
            part.replace(path)
        except FileNotFoundError:
            return False
        finally:
            part.unlink(missing_ok=True)
        return self._is_sound(path, entry, tick)

    def remove(self, key: str) -> None:
        """The manifest first: a step without it is none."""
        self._seen.pop(key, None)
        self.bucket.delete(WHOLE + key)
        self.bucket.delete(f"{STEPS}{key}/")
        self._drop(key)

    def whole_keys(self) -> Iterator[str]:
        """The keys of all whole steps, in no order."""
        yield from (name.removeprefix(WHOLE) for name in self.bucket.names(WHOLE))

    def forget_work(self, key: str) -> None:
        """Remove what the attempts of a published step left behind, here and in the bucket."""
        super().forget_work(key)
        self.bucket.delete(WORK + key)

    def put_blob(self, data: bytes) -> str:
        """Keep bytes under their own hash, which is returned."""
        digest = super().put_blob(data)
        self.bucket.write(BLOBS + digest, data)
        return digest

    def blob(self, digest: str) -> Path:
        """Where a blob lies here; it is fetched for that. No file is there where the bucket has none."""
        path = super().blob(digest)
        if not path.exists():
            try:
                write_atomically(path, self.bucket.read(BLOBS + digest))
            except FileNotFoundError:
                log.info("no such blob", extra={"sha256": digest})
        return path

    def remove_blob(self, digest: str) -> None:
        """Harmless when it is not there."""
        self.bucket.delete(BLOBS + digest)
        super().remove_blob(digest)

    def upload(self, upload_id: str) -> Path:
        """Where an upload lies here; it is fetched for that."""
        path = super().upload(upload_id)
        if not path.exists():
            self._unpacked(UPLOADS + upload_id, path)
        return path

    def keep_upload(self, upload_id: str, made: Path) -> None:
        """Let the other machines have it. Raises BucketAway."""
        self._packed(made, UPLOADS + upload_id, _nothing)

    def remove_upload(self, upload_id: str, aside: Path) -> None:
        """Harmless when nothing is there."""
        self.bucket.delete(UPLOADS + upload_id)
        super().remove_upload(upload_id, aside)

    def keep_work(self, key: str, tick: Callable[[], None] = _nothing) -> None:
        """Let another machine go on from here, where that is not too much to send."""
        folder = self.checkpoints(key)
        files = [path for path in folder.rglob("*") if path.is_file()]
        if files and sum(path.stat().st_size for path in files) <= WORK_BYTES:
            self._packed(folder, WORK + key, tick)

    def bring_work(self, key: str, tick: Callable[[], None] = _nothing) -> None:
        """Have what another machine left, where nothing is here."""
        folder = self.checkpoints(key)
        if not any(folder.iterdir()):
            folder.rmdir()
            self._unpacked(WORK + key, folder, tick)
            folder.mkdir(parents=True, exist_ok=True)

    def check(self) -> None:
        """Raises OSError when the folder cannot be written, or the bucket does not answer."""
        super().check()
        self.bucket.check()

    def away(self) -> str | None:
        """Whether the bucket answers, as of some seconds ago."""
        if time.monotonic() - self._asked >= ASKED_S:
            self._asked, self._away = time.monotonic(), None
            try:
                self.bucket.check()
            except BucketAway as error:
                self._away = str(error)
        return self._away

    def trim(self) -> None:
        """Let go of the copies that were used longest ago, until the rest is as small as it should be."""
        if not self._most_bytes or time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        found = [(path.stat().st_mtime, path) for path in (self.root / "steps").glob("*")]
        sizes = {path: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) for _, path in found}
        held = sum(sizes.values())
        for used_at, path in sorted(found):
            if held <= self._most_bytes or time.time() - used_at < IN_USE_S:
                return
            self._drop(path.name)
            held -= sizes[path]

    def _packed(self, folder: Path, name: str, tick: Callable[[], None]) -> None:
        archive = self.root / f".{uuid.uuid4().hex}.tar"
        try:
            with tarfile.open(archive, "w") as tar:
                tar.add(folder, arcname=".")
            self._send(archive, name, tick)
        finally:
            archive.unlink(missing_ok=True)

    def _unpacked(self, name: str, folder: Path, tick: Callable[[], None] = _nothing) -> None:
        """Harmless when the bucket has none, or somebody here was quicker."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        archive, part = (folder.parent / f".{uuid.uuid4().hex}.{end}" for end in ("tar", "part"))
        try:
            self.bucket.download(name, archive, tick)
            with tarfile.open(archive) as tar:
                tar.extractall(part, filter="data")
            part.replace(folder)
        except FileNotFoundError:
            return
        except OSError:
            if not folder.is_dir():
                raise
        finally:
            archive.unlink(missing_ok=True)
            shutil.rmtree(part, ignore_errors=True)

    def _send(self, path: Path, name: str, tick: Callable[[], None]) -> None:
        self._kept(lambda: self.bucket.upload(path, name, tick), tick)

    def _kept(self, action: Callable[[], Answer], tick: Callable[[], None]) -> Answer:
        """Do it again and again while the bucket is away, for some minutes. Raises BucketAway, and what `tick` raises."""
        until, pause_s = time.monotonic() + self._patience_s, PAUSES_S[0]
        while True:
            try:
                return action()
            except BucketAway as error:
                if time.monotonic() + pause_s > until:
                    raise
                log.warning("bucket away", extra={"error": str(error), "again_in_s": pause_s})
            rested = time.monotonic() + pause_s
            while time.monotonic() < rested:
                tick()
                time.sleep(min(0.5, pause_s))
            pause_s = min(2 * pause_s, PAUSES_S[1])
