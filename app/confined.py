"""What somebody sent is read in a process of its own, which may take only so much memory, time and disk.

Its programs are `app.unpacking` and `app.tensors`; `app.cage` is the inside of the process, this module the outside.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from app import cage, tensors, unpacking
from app.children import tied
from app.errors import Unavailable, Unprocessable
from app.settings import Settings
from app.tensors import Header
from app.unpacking import BadImage, Limits, Unpacked
from engine.folders import SUFFIXES, TEST_FOLDERS
from engine.store import sync

log = logging.getLogger(__name__)
PYTHON = (sys.executable, "-I", "-X", "utf8")
ROOT = Path(cage.__file__).parents[1]


def limits_of(settings: Settings) -> Limits:
    """Those of an archive, as the administrator set them."""
    return Limits(
        entries=settings.max_upload_entries,
        file_bytes=settings.max_upload_file_bytes,
        unpacked_bytes=settings.max_upload_unpacked_bytes,
        ratio=settings.max_upload_ratio,
        pixels=settings.max_upload_pixels,
    )


def cage_of(settings: Settings) -> cage.Limits:
    """Those of the process."""
    return cage.Limits(
        memory_bytes=settings.max_unpacking_bytes,
        seconds=settings.max_unpacking_s,
        file_bytes=settings.max_upload_file_bytes,
    )


def unpack(archive: Path, folder: Path, settings: Settings, *, skip_bad: bool = False) -> Unpacked:
    """Write an archive's images below `folder`, which is made, and have them on the disk.

    Raises Unprocessable for what is broken, hostile or over a limit, with the unreadable images in `details`, and
    Unavailable where the disk is full. Linux ends the process together with the thread that is here.
    """
    order = {
        "archive": str(archive),
        "folder": str(folder),
        "skip_bad": skip_bad,
        "suffixes": sorted(SUFFIXES),
        "test_folders": sorted(TEST_FOLDERS),
        "limits": asdict(limits_of(settings)),
    }
    found = _done(unpacking, order, cage_of(settings))
    for made in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync(made)
    return Unpacked(**found | {"files": tuple(BadImage(**file) for file in found["files"])})


def read_header(path: Path, settings: Settings) -> Header:
    """What a file of weights says that it holds. Raises Unprocessable for what is broken, hostile or no safetensors."""
    found = _done(tensors, {"file": str(path)}, cage_of(settings))
    return Header(dtypes=found["dtypes"], shapes={name: tuple(shape) for name, shape in found["shapes"].items()})


def full() -> Unavailable:
    """There is no room for what was sent."""
    hint = "Have an administrator free space in the store, then send it again."
    return Unavailable("The server's disk is full.", hint=hint, headers={"Retry-After": "600"})


def _done(program: ModuleType, order: dict[str, Any], limits: cage.Limits) -> dict[str, Any]:
    """What a program makes of an order. Raises Unprocessable, Unavailable."""
    answer = _asked(program, json.dumps(order | {"cage": asdict(limits)}).encode(), limits)
    taken = "done" in answer
    log.info("upload read", extra={"by": program.__name__, "peak_bytes": answer["peak_bytes"], "taken": taken})
    if "full" in answer:
        raise full()
    if "refused" in answer:
        refused = answer["refused"]
        raise Unprocessable(refused["detail"], hint=refused["hint"], **refused["details"])
    found: dict[str, Any] = answer["done"]
    return found


def _asked(program: ModuleType, order: bytes, limits: cage.Limits) -> dict[str, Any]:
    """What the process says. Raises Unprocessable when it was ended before it could."""
    start = f"import sys; sys.path.append({str(ROOT)!r}); from {program.__name__} import main; main()"
    with subprocess.Popen(
        tied((*PYTHON, "-c", start)),
        env={},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            told, last_words = process.communicate(order, timeout=limits.seconds)
        except subprocess.TimeoutExpired as error:
            raise _too_long(limits) from error
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode == 0:
        answer: dict[str, Any] = json.loads(told)
        return answer
    if process.returncode in {-signal.SIGXCPU, -signal.SIGKILL}:
        raise _too_long(limits)
    log.error(
        "reader of an upload died", extra={"status": process.returncode, "error": last_words.decode(errors="replace")}
    )
    raise Unprocessable(
        "Reading what was sent ended the program that reads it.", hint="Make it again, by an ordinary program."
    )


def _too_long(limits: cage.Limits) -> Unprocessable:
    return Unprocessable(
        f"Reading what was sent takes more than {limits.seconds:,} seconds.",
        hint="Make the images smaller or send fewer, or have an administrator raise FADRM_MAX_UNPACKING_S.",
    )
