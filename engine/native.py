"""Our code in C, compiled for this very CPU when it is first wanted, where there is a compiler. Torch-free.

It does nothing that torch cannot do; it does it in fewer passes over memory.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

SOURCE = Path(__file__).with_name("norms.c")
OPTIONS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-fno-math-errno")
COMPILERS = ("cc", "gcc", "clang")
COMPILES_S = 120.0
CPU_FACTS = Path("/proc/cpuinfo")


@cache
def norms() -> ctypes.CDLL | None:
    """The passes of norms.c; None where they cannot be compiled, and torch does all."""
    with suppress(OSError, subprocess.SubprocessError):
        return ctypes.CDLL(str(_compiled(SOURCE)))
    return None


def _compiled(source: Path) -> Path:
    """The library made of a file, from this user's cache where it was made before."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise FileNotFoundError("no C compiler")
    made_of = "\0".join((source.read_text(), *OPTIONS, compiler, _cpu()))
    folder = _cache()
    library = folder / f"{source.stem}-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.so"
    if not library.exists():
        with TemporaryDirectory(dir=folder) as scratch:
            fresh = Path(scratch) / library.name
            command = [compiler, *OPTIONS, "-o", str(fresh), str(source)]
            subprocess.run(command, check=True, capture_output=True, timeout=COMPILES_S)
            fresh.replace(library)  # at once: another process may be about the same
    return library


def _cache() -> Path:
    """A folder that is this user's own, and there."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        folder = home / "fadrm"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (OSError, RuntimeError):
        folder = Path(gettempdir()) / f"fadrm-{os.getuid()}"
        folder.mkdir(exist_ok=True, mode=0o700)
    if folder.stat().st_uid != os.getuid() or not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} is not this user's")
    return folder


def _cpu() -> str:
    """What "native" means here: a home folder may be shared by machines."""
    with suppress(OSError):
        facts = CPU_FACTS.read_text().split("\n\n", 1)[0].splitlines()
        return "\n".join(line for line in facts if line.startswith(("flags", "Features", "model name", "CPU part")))
    return platform.processor() + platform.machine()
