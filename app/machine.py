"""This machine: its cores and GPUs, and the processes that the service starts on it. Knows nothing of torch."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
NVIDIA_SMI = ("nvidia-smi", "--query-gpu=index,name,memory.free", "--format=csv,noheader,nounits")
STATE, GROUP, STARTED = 0, 2, 19  # fields of /proc/<pid>/stat after the name in parentheses


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a worker computes on."""

    id: str  # "cpu", "cuda:0"
    name: str
    free_bytes: int | None = None

    def __str__(self) -> str:
        free = "" if self.free_bytes is None else f" ({self.free_bytes / 2**30:.0f} GiB free)"
        return f"{self.id} {self.name}{free}"


def hostname() -> str:
    """This machine's name, as workers and attempts carry it."""
    return socket.gethostname()[:48]


def cores() -> int:
    """CPU cores that this process may use: those it is bound to, and no more than its container's quota."""
    bound = len(os.sched_getaffinity(0))
    try:
        quota, period = CGROUP_QUOTA.read_text().split()
        return max(1, min(bound, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return bound


def cpu() -> Device:
    """The CPU as a device."""
    return Device(id="cpu", name=f"{cores()} cores")


def gpus() -> list[Device]:
    """The GPUs that the driver's own tool names; none where there is no such tool."""
    if shutil.which(NVIDIA_SMI[0]) is None:
        return []
    try:
        told = subprocess.run(NVIDIA_SMI, capture_output=True, text=True, timeout=20, check=True).stdout
    except (subprocess.SubprocessError, OSError):
        return []
    return [_gpu(line) for line in told.splitlines() if line.count(",") >= 2]


def _gpu(line: str) -> Device:
    index, _, rest = line.partition(",")
    name, _, free = rest.rpartition(",")
    free_mib = free.strip()
    return Device(
        id=f"cuda:{index.strip()}", name=name.strip(), free_bytes=int(free_mib) * 2**20 if free_mib.isdigit() else None
    )


def device(wanted: str) -> Device:
    """The device of that id, with the name that the machine gives it."""
    return next((found for found in [cpu(), *gpus()] if found.id == wanted), Device(id=wanted, name=""))


def started(pid: int) -> float | None:
    """When a process began, in seconds since the machine did: with its pid, a name no other process ever has.

    None when there is no such process, or only its remains. No clock that can be set is read.
    """
    fields = _stat(pid)
    if fields is None or fields[STATE] in "ZX":
        return None
    return int(fields[STARTED]) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def kill_leftover(pid: int, began: float) -> bool:
    """End a process that an earlier worker left, with its whole group, if it still lives. True when it did."""
    if started(pid) != began:
        return False
    fields = _stat(pid)
    leads = fields is not None and int(fields[GROUP]) == pid
    try:
        if leads:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
