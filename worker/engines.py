"""How this worker starts its engines: the device they see, the cores they use, the little environment they are given."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine import launch
from worker.supervise import EngineProcess

# What an engine is given of the worker's environment. Database, Redis and secrets of the service are not among it.
PASSED_ON = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "XDG_CACHE_HOME",
    "CC", "TRITON_CACHE_DIR", "FADRM_CUDA_GRAPHS",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
})  # fmt: skip
PASSED_ON_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "NCCL_", "TORCH", "PYTORCH_", "OMP_", "MKL_", "KMP_", "COVERAGE_")
THREAD_LIMITS = ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """Starts engine processes for one device. command: for tests; by default the engine itself."""

    device: str  # as the service names it: "cpu", "cuda:1"
    threads: int
    command: Sequence[str] | None = None

    @property
    def seen_device(self) -> str:
        """The device as the engine process sees it: of the GPUs it is shown this one alone."""
        return "cuda:0" if self.device.startswith("cuda") else "cpu"

    @property
    def shown_device(self) -> str:
        """The one GPU that its engines see, by number or UUID; empty for the CPU."""
        return _shown_device(os.environ, self.device)["CUDA_VISIBLE_DEVICES"]

    def start(self) -> EngineProcess:
        """A new engine process."""
        command = launch.command(threads=self.threads) if self.command is None else self.command
        return EngineProcess(command, environment(os.environ, device=self.device, threads=self.threads))


def environment(base: Mapping[str, str], *, device: str, threads: int) -> dict[str, str]:
    """The environment of an engine: no secrets, one device, so many threads."""
    passed = {name: base[name] for name in base if name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)}
    limits = dict.fromkeys(("OMP_NUM_THREADS", *THREAD_LIMITS), str(threads))
    return launch.environment(passed | limits | _shown_device(passed, device), threads=threads)


def _shown_device(base: Mapping[str, str], device: str) -> dict[str, str]:
    """CUDA_VISIBLE_DEVICES: nothing for the CPU, one GPU else. Numbers count within what the worker itself is shown."""
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return {"CUDA_VISIBLE_DEVICES": ""}
    index = int(number or 0)
    shown = [name for name in base.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    chosen = shown[index] if index < len(shown) else str(index)
    return {"CUDA_VISIBLE_DEVICES": chosen, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
