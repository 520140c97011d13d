"""What this machine is, and what it does at best."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import Peaks

ROOT = Path(__file__).parents[1]
PRODUCT_SIDE = {"cpu": 2048, "cuda": 8192}
COPY_BYTES = {"cpu": 2**28, "cuda": 2**32}
TRIES = 5


def facts(device: torch.device) -> dict[str, Any]:
    """For the record: processor, device, versions."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "device": device.type,
        "gpu": gpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def peaks(device: torch.device) -> Peaks:
    """The best of several tries of a matrix product in each precision, and of a copy."""
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if device.type == "cuda":
        kinds["fp16"] = torch.float16
    side = PRODUCT_SIDE[device.type]
    rates = {}
    for name, dtype in kinds.items():
        one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        rates[name] = 2 * side**3 / _best_s(lambda one=one, other=other: one @ other, device)  # type: ignore[misc]
    source = torch.zeros(COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Peaks(flop_per_s=rates, bytes_per_s=2 * source.nbytes / _best_s(lambda: target.copy_(source), device))


def commit() -> str:
    """The commit of this checkout; `+` where files differ from it."""
    try:
        told = [
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--", "engine"])
        ]
    except (OSError, subprocess.CalledProcessError):  # a copy without its history
        return "unknown"
    return told[0] + ("+" if told[1] else "")


def _best_s(work: Callable[[], object], device: torch.device) -> float:
    best = float("inf")
    for _ in range(TRIES + 1):  # the first warms up
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return best


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
