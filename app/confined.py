"""Unpacking in a process of its own, which may take only so much memory, time and disk: `app.unpacking`, from outside."""

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
from typing import Any

from app import unpacking
from app.children import tied
from app.errors import Unavailable, Unprocessable
from app.settings import Settings
from app.unpacking import BadImage, Limits, Unpacked
from engine.folders import SUFFIXES, TEST_FOLDERS
from engine.store import sync

log = logging.getLogger(__name__)
COMMAND = (sys.executable, "-I", "-X", "utf8", str(Path(unpacking.__file__)))


def limits_of(settings: Settings) -> Limits:
    """Those that the administrator set."""
    return Limits(
        entries=settings.max_upload_entries,
        file_bytes=settings.max_upload_file_bytes,
        unpacked_bytes=settings.max_upload_unpacked_bytes,
        ratio=settings.max_upload_ratio,
        pixels=settings.max_upload_pixels,
        memory_bytes=settings.max_unpacking_bytes,
        seconds=settings.max_unpacking_s,
    )


def unpack(archive: Path, folder: Path, limits: Limits, *, skip_bad: bool = False) -> Unpacked:
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
        "limits": asdict(limits),
    }
    answer = _asked(json.dumps(order).encode(), limits)
    log.info("archive read", extra={"peak_bytes": answer["peak_bytes"], "taken": "unpacked" in answer})
    if "full" in answer:
        raise full()
    if "refused" in answer:
        refused = answer["refused"]
        files = {"files": refused["files"]} if refused["files"] else {}
        raise Unprocessable(refused["detail"], hint=refused["hint"], **files)
    for made in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync(made)
    found = answer["unpacked"]
    return Unpacked(**found | {"files": tuple(BadImage(**file) for file in found["files"])})


def full() -> Unavailable:
    """There is no room for what was sent."""
    hint = "Have an administrator free space in the store, then send it again."
    return Unavailable("The server's disk is full.", hint=hint, headers={"Retry-After": "600"})


def _asked(order: bytes, limits: Limits) -> dict[str, Any]:
    """What the process says. Raises Unprocessable when it was ended before it could."""
    with subprocess.Popen(
        tied(COMMAND),
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
    log.error("archive reader died", extra={"status": process.returncode, "error": last_words.decode(errors="replace")})
    raise Unprocessable(
        "Reading the archive ended the program that reads it.", hint="Make the archive again, from image files alone."
    )


def _too_long(limits: Limits) -> Unprocessable:
    return Unprocessable(
        f"Reading the archive takes more than {limits.seconds:,} seconds.",
        hint="Make the images smaller or send fewer, or have an administrator raise FADRM_MAX_UNPACKING_S.",
    )
