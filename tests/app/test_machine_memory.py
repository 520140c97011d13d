"""What the machine says of its memory and its GPUs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app import machine

# In the form in which drivers tell it. The second GPU's driver does not know how busy it is; a name may hold a comma.
GPUS = """\
0, GPU-22b2c6ac-2d49-4863-197c-9c469071178a, 7979, 7199, 86, GeForce RTX 2080
1, GPU-101b1cf0-fdf7-b374-a62c-76b25134fcf2, 2004, 2004, [N/A], GeForce GTX 960M, 2 GB
2, GPU-5f1d0c6e-6c5c-0b7f-9e1f-0a6f0f6f9d11, [Not Supported], [Not Supported], [Not Supported], NVIDIA H200 MIG 1g
"""
PROCESSES = """\
GPU-22b2c6ac-2d49-4863-197c-9c469071178a, 40170, 185, /opt/rh/rh-python38/root/usr/bin/python3
GPU-22b2c6ac-2d49-4863-197c-9c469071178a, 28290, [N/A], [Not Found]
"""


def test_gpus_are_read_as_their_driver_tells_of_them() -> None:
    first, second, third = machine.parse_gpus(GPUS)
    assert (first.id, first.name, first.busy_pct) == ("cuda:0", "GeForce RTX 2080", 86)
    assert (first.total_bytes, first.free_bytes) == (7979 * 2**20, 7199 * 2**20)
    assert second.busy_pct is None and second.name == "GeForce GTX 960M, 2 GB"
    assert third.id == "cuda:2" and third.total_bytes is None and third.free_bytes is None


def test_processes_are_read_with_the_gpu_that_they_are_on() -> None:
    found = machine.parse_processes(PROCESSES)
    assert list(found) == ["GPU-22b2c6ac-2d49-4863-197c-9c469071178a"]
    known, unknown = found["GPU-22b2c6ac-2d49-4863-197c-9c469071178a"]
    assert (known.pid, known.used_bytes) == (40170, 185 * 2**20) and known.name.endswith("python3")
    assert unknown.used_bytes is None


@pytest.mark.parametrize(
    "told", ["", "No devices were found\n", "NVIDIA-SMI has failed because it couldn't, perhaps\n"]
)
def test_a_driver_that_is_not_well_has_no_gpus(told: str) -> None:
    assert machine.parse_gpus(told) == [] and machine.parse_processes(told) == {}


def test_memory_is_what_the_kernel_says_and_a_containers_limit_where_it_is_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       24000000 kB\nMemFree: 1 kB\nMemAvailable:   16000000 kB\n")
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "CGROUP_MEMORY", tmp_path)
    assert machine.memory() == (16_000_000 * 1024, 24_000_000 * 1024)
    for name, text in {"max": "8000", "current": "7000", "stat": "anon 6000\ninactive_file 500\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert machine.memory() == (1500, 8000)
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory().total_bytes == 24_000_000 * 1024


THREADS = """
import ctypes, sys, threading
from app import machine
if sys.argv[1] == "shared":
    machine.share_arenas()
together = threading.Barrier(12)
def work():
    together.wait()
    pieces = [bytes(100_000) for _ in range(20)]
    together.wait()
threads = [threading.Thread(target=work) for _ in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, file)
libc.fflush(file)
"""


def test_threads_share_two_arenas_instead_of_having_one_each() -> None:
    def arenas(how: str) -> int:
        told = subprocess.run([sys.executable, "-c", THREADS, how], capture_output=True, text=True, check=True)
        return told.stdout.count("<heap nr=")

    assert arenas("shared") <= 2 < arenas("own")
