"""This machine: its cores and GPUs, and the processes that the service starts on it. Knows nothing of torch."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
CGROUP_MEMORY = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
NVIDIA_SMI = "nvidia-smi"
GPUS = (
    NVIDIA_SMI,
    "--query-gpu=index,uuid,memory.total,memory.free,utilization.gpu,name",
    "--format=csv,noheader,nounits",
)
PROCESSES = (NVIDIA_SMI, "--query-compute-apps=gpu_uuid,pid,used_memory,process_name", "--format=csv,noheader,nounits")
NVIDIA_S = 10.0  # a driver that takes longer is not well
MIB = 2**20
M_ARENA_MAX, ARENAS = -8, 2  # glibc's malloc.h
STATE, GROUP, STARTED = 0, 2, 19  # fields of /proc/<pid>/stat after the name in parentheses


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """Somebody who computes on a GPU."""

    pid: int  # in a container: that of the machine, by which nobody in the container is known
    name: str
    used_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a worker computes on."""

    id: str  # "cpu", "cuda:0"
    name: str
    uuid: str = ""
    free_bytes: int | None = None
    total_bytes: int | None = None
    busy_pct: int | None = None  # share of the last moments in which it computed

    def __str__(self) -> str:
        free = "" if self.free_bytes is None else f" ({self.free_bytes / 2**30:.0f} GiB free)"
        return f"{self.id} {self.name}{free}"


class Memory(NamedTuple):
    """Of this machine, or of the container that this process is in."""

    free_bytes: int
    total_bytes: int


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


def memory() -> Memory:
    """What processes may still take, and what there is. A container's limit counts where it is the smaller one."""
    words = (line.split() for line in MEMINFO.read_text().splitlines())
    kib = {name.rstrip(":"): int(value) for name, value, *_ in words}
    machine = Memory(kib["MemAvailable"] * 1024, kib["MemTotal"] * 1024)
    try:
        limit = int((CGROUP_MEMORY / "memory.max").read_text())
        used = int((CGROUP_MEMORY / "memory.current").read_text())
        counts = dict(line.split() for line in (CGROUP_MEMORY / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such file, or "max": no limit
        return machine
    free = limit - used + int(counts.get("inactive_file", 0))  # pages of files are given up when somebody needs them
    return Memory(max(0, min(machine.free_bytes, free)), min(machine.total_bytes, limit))


def resident_bytes(pid: int) -> int:
    """Memory that a process takes; 0 when there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def gpus() -> list[Device]:
    """The GPUs that the driver's own tool names; none where there is no such tool."""
    return parse_gpus(_told(GPUS))


def processes() -> dict[str, list[Process]]:
    """UUID of a GPU -> who computes on it, whoever they are."""
    return parse_processes(_told(PROCESSES))


def _told(command: Sequence[str]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_S, check=True).stdout
    except (subprocess.SubprocessError, OSError):
        return ""


def parse_gpus(told: str) -> list[Device]:
    """`0, GPU-6e1d..., 81559, 80910, 37, NVIDIA H100`; what a driver does not know it calls [N/A] or [Not Supported]."""
    return [_gpu(*fields) for line in told.splitlines() if len(fields := _fields(line, 6)) == 6]


def _gpu(index: str, uuid: str, total: str, free: str, busy: str, name: str) -> Device:
    return Device(
        id=f"cuda:{index}",
        name=name,
        uuid=uuid,
        free_bytes=_mib(free),
        total_bytes=_mib(total),
        busy_pct=int(busy) if busy.isdigit() else None,
    )


def parse_processes(told: str) -> dict[str, list[Process]]:
    """`GPU-6e1d..., 40170, 185, /usr/bin/python3`; a name may hold commas."""
    found: dict[str, list[Process]] = defaultdict(list)
    for line in told.splitlines():
        fields = _fields(line, 4)
        if len(fields) == 4 and fields[1].isdigit():
            uuid, pid, used, name = fields
            found[uuid].append(Process(pid=int(pid), name=name, used_bytes=_mib(used)))
    return dict(found)


def _fields(line: str, count: int) -> list[str]:
    return [field.strip() for field in line.split(",", count - 1)]


def _mib(text: str) -> int | None:
    return int(text) * MIB if text.isdigit() else None


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


def share_arenas() -> None:
    """Let all threads of this process share two of malloc's arenas. Where each has its own, what was freed in one serves no
    other: the API, with its forty threads, grew by a tenth in half an hour. Only glibc has arenas."""
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)
