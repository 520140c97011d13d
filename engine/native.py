"""Our code in C, compiled for this very CPU when it is first wanted, where there is a compiler. Torch-free.

It does nothing that torch cannot do; it does it in fewer passes over memory.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

SOURCE = Path(__file__).with_name("norms.c")
OPTIONS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-fno-math-errno")
COMPILERS = ("cc", "gcc", "clang")
COMPILES_S = 120.0
FAILED_S = 3600.0  # in which a compiler that failed is not asked again
CPU_FACTS = Path("/proc/cpuinfo")


log = logging.getLogger(__name__)


@cache
def norms() -> ctypes.CDLL | None:
    """The passes of norms.c; None where they cannot be compiled, and torch does all: the log says why."""
    try:
        return _loaded(SOURCE)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("norms are computed by torch: %s", error)  # in words, as an engine's log shows no fields
    return None


def _loaded(source: Path) -> ctypes.CDLL:
    """The library made of a file; one that is damaged is made once more."""
    library = _compiled(source)
    try:
        return ctypes.CDLL(str(library))
    except OSError:
        library.unlink(missing_ok=True)
    return ctypes.CDLL(str(_compiled(source)))


def _compiled(source: Path) -> Path:
    """The library made of a file, from this user's cache where it was made before."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise FileNotFoundError("no C compiler")
    made_of = "\0".join((source.read_text(), *OPTIONS, compiler, _cpu()))
    folder = cache_folder()
    library = folder / f"{source.stem}-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.so"
    if library.exists():
        return _own(library)
    failed = library.with_suffix(".failed")
    with suppress(FileNotFoundError):
        if time.time() - failed.stat().st_mtime < FAILED_S:
            raise OSError(f"{compiler} failed within the last hour; once it works, remove {failed}")
    with TemporaryDirectory(dir=folder) as scratch:
        fresh = Path(scratch) / library.name
        try:
            _compile(compiler, source, fresh)
        except subprocess.SubprocessError:
            failed.touch(mode=0o600)
            raise
        fresh.replace(library)  # at once: another process may be about the same
    failed.unlink(missing_ok=True)
    return library


def _compile(compiler: str, source: Path, library: Path) -> None:
    """Onto the disk: what is renamed before may be empty after a power cut. Raises SubprocessError."""
    command = [compiler, *OPTIONS, "-o", str(library), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=COMPILES_S)
    library.chmod(0o700)
    with library.open("rb") as file:
        os.fsync(file.fileno())


def cache_folder() -> Path:
    """A folder that is this user's own, and there. Raises PermissionError."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        folder = home / "fadrm"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (OSError, RuntimeError):
        folder = Path(gettempdir()) / f"fadrm-{os.getuid()}"
        folder.mkdir(exist_ok=True, mode=0o700)
    return _own(folder)


def _own(path: Path) -> Path:
    """The path, where nobody but this user can put code in its place. Raises PermissionError."""
    facts = path.lstat()
    if stat.S_ISLNK(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"others can write {path}: remove it, or make it this user's alone (chmod 700)")
    return path


def _cpu() -> str:
    """What "native" means here: a home folder may be shared by machines."""
    with suppress(OSError):
        facts = CPU_FACTS.read_text().split("\n\n", 1)[0].splitlines()
        return "\n".join(line for line in facts if line.startswith(("flags", "Features", "model name", "CPU part")))
    return platform.processor() + platform.machine()
