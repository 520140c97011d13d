"""Checkpoints of a step: whole or not there, checked before use, and enough to go on byte for byte.

<attempt>-<rank>.safetensors   the tensors
<attempt>-<rank>.json          written after them: what else there is to know, and their hash
files-<something>/             arrays that are too large to be copied into each: see `large_files`
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from engine import arrays
from engine.store import write_atomically
from engine.students import restore_memory

KEPT = 2
FILES = "files-"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Where a step was: its tensors, and plain JSON values."""

    rank: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    files: Path | None = None  # the large files that go with it


@dataclass(slots=True, kw_only=True)
class Checkpoints:
    """The checkpoints of one step, for the attempt that is under way to write and to go on from."""

    folder: Path
    attempt: int = 0
    every_s: float = 60.0
    _files: Path | None = None
    _last: float = field(default_factory=time.monotonic)  # s, monotonic clock

    def is_due(self) -> bool:
        """Whether the last one is longer ago than `every_s`."""
        return time.monotonic() - self._last >= self.every_s

    def save(self, *, rank: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Put a checkpoint on the disk, then forget all but the newest two. rank: grows with the work done."""
        name = f"{self.attempt:06d}-{rank:012d}"
        data = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
        digest = hashlib.sha256(data).hexdigest()
        head = {"attempt": self.attempt, "rank": rank, "sha256": digest, "facts": dict(facts)}
        if self._files is not None:
            head["files"] = self._files.name
        self._head(name).unlink(missing_ok=True)
        write_atomically(self.folder / f"{name}.safetensors", data)
        write_atomically(self._head(name), json.dumps(head).encode())
        self._forget_old()
        self._last = time.monotonic()

    def large_files(self, found: Checkpoint | None, *, exact: bool) -> Path:
        """A folder for arrays too large to be copied into each checkpoint: they stay where they are, and grow.

        No two attempts share one: who was given up and still runs changes nothing that a later attempt writes. found: what
        this attempt goes on from; it gets those arrays, by a second name where every machine would write the same bytes.
        """
        self._files = Path(tempfile.mkdtemp(prefix=FILES, dir=self.folder))
        if found is not None and found.files is not None:
            if exact:
                place(found.files.iterdir(), self._files)
            else:
                shutil.copytree(found.files, self._files, dirs_exist_ok=True)
        return self._files

    def latest(self) -> Checkpoint | None:
        """The one with the most work done that can be read; a damaged one is passed over for the one before it."""
        for name in self._names():
            try:
                return self._load(name)
            except (OSError, ValueError, KeyError) as error:
                log.warning("checkpoint passed over", extra={"checkpoint": name, "reason": str(error)})
        return None

    def _load(self, name: str) -> Checkpoint:
        head = json.loads(self._head(name).read_bytes())
        data = (self.folder / f"{name}.safetensors").read_bytes()
        if hashlib.sha256(data).hexdigest() != head["sha256"]:
            raise ValueError("its bytes are not those that were written")
        files = self.folder / head["files"] if "files" in head else None
        if files is not None and not files.is_dir():
            raise ValueError("its large files are gone")
        return Checkpoint(rank=head["rank"], tensors=load(data), facts=head["facts"], files=files)

    def _names(self) -> list[str]:
        """Most work done first, then the newest attempt. Every attempt would come to the same state."""
        names = [path.stem for path in self.folder.glob("*-*.json")]
        return sorted(names, key=lambda name: tuple(reversed(name.split("-"))), reverse=True)

    def _forget_old(self) -> None:
        kept = self._names()[:KEPT]
        for path in self.folder.glob("*-*.*"):
            if path.stem not in kept:
                path.unlink(missing_ok=True)
        named = {self._files} | {self._files_of(name) for name in kept}
        for path in set(self.folder.glob(f"{FILES}*")) - named:
            shutil.rmtree(path, ignore_errors=True)

    def _files_of(self, name: str) -> Path | None:
        try:
            found = json.loads(self._head(name).read_bytes()).get("files")
        except (OSError, ValueError):
            return None
        return self.folder / found if found else None

    def _head(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors with `prefix/` before each name, so that several states fit in one checkpoint."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def taken_from(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `under(prefix, ...)` put in."""
    return dict(_stripped(f"{prefix}/", tensors))


def _stripped(prefix: str, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, value in tensors.items():
        if name.startswith(prefix):
            yield name.removeprefix(prefix), value


def opened_array(path: Path, shape: tuple[int, ...], dtype: torch.dtype, *, going_on: bool) -> Tensor:
    """An array of `large_files`: the one that earlier attempts filled in part, or a new one."""
    return arrays.read(path, writable=True) if going_on else arrays.create(path, shape, dtype)


def place(files: Iterable[Path], folder: Path) -> None:
    """Give files a second name in a folder, or copy them where the disk does not do that."""
    for file in files:
        try:
            os.link(file, folder / file.name)
        except OSError:
            shutil.copyfile(file, folder / file.name)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers of each parameter: `<index>.<name>` -> tensor."""
    remembered: dict[int, dict[str, Tensor]] = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, entry in remembered.items() for name, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser its memory back: the reverse of `optimizer_tensors`."""
    remembered: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        remembered.setdefault(int(index), {})[name] = value
    restore_memory(optimizer, remembered)
