"""The device a step runs on, and how torch is set up for it."""

from __future__ import annotations

import gc
import platform
import re
from contextlib import suppress
from pathlib import Path

import torch

from engine import __version__, passes
from engine.errors import OutOfMemory, SpecInvalid
from engine.fields import Precision as WantedPrecision
from engine.precision import Precision, precision_for

PROCESS = Path("/proc/self")  # as Linux tells of this process
BYTES = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}

OUT_OF_MEMORY = (  # as drivers, libraries and a CPU's allocator say it; torch's allocator of a GPU has an error of its own
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",  # its name since cuDNN 9
)
NO_WAY_TO_COMPUTE = "unable to find an engine to execute this computation"  # cuDNN: no scratch memory, or it is broken
LITTLE_SHARE = 0.1  # of a GPU's memory: where less is free, it was the scratch memory


def pick(wish: str = "auto") -> torch.device:
    """The device of that name; "auto" is the first GPU, or the CPU where there is none; "cuda" is the first GPU.

    Raises SpecInvalid.
    """
    if wish == "auto":
        wish = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wish)
    except RuntimeError as error:
        raise SpecInvalid(f"{wish!r} is no device.", hint="Use auto, cpu, or cuda:<number>.", pointer="") from error
    found = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cuda" and (device.index or 0) >= found:
        raise SpecInvalid(
            f"{wish!r} was asked for, but torch finds {found} GPUs here.",
            hint="Use auto or cpu, or start a GPU worker.",
        )
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def configure(device: torch.device, *, threads: int | None = None) -> None:
    """Set this process up: threads, and the same algorithms on every run. TF32 stays off: fp32 means fp32."""
    if threads is not None:
        torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    if device.type == "cuda":
        torch.cuda.set_device(device)


def resolve(wish: WantedPrecision, device: torch.device) -> Precision:
    """The precision to compute in. Raises SpecInvalid where the device cannot do it in reasonable time."""
    if wish == "fp16" and device.type == "cpu":
        raise SpecInvalid(
            "precision is fp16, but this worker has no GPU, and CPUs compute fp16 about ten times slower than fp32.",
            hint="Set precision to auto or fp32, or run the job on a GPU worker.",
            pointer="/precision",
        )
    return precision_for(wish, device)


def environment(device: torch.device) -> dict[str, str]:
    """What a manifest says of the machine that did a step."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "fadrm": __version__,
        "device": str(device),
        "device_name": name,
        "threads": str(torch.get_num_threads()),
        "norms": passes.known(device),  # decisions 12 and 14
    }


def free_bytes(device: torch.device) -> int:
    """What tensors may still take of a GPU: also what this process's allocator keeps of those that are gone."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def give_back(device: torch.device) -> None:
    """Let others have the memory of tensors that nobody needs; on a CPU they have it already."""
    if device.type == "cuda":
        gc.collect()  # some refer to themselves
        torch.cuda.empty_cache()


def forget_peak(device: torch.device) -> None:
    """From here on `peak_bytes` counts anew: a process may do several steps in turn."""
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call] # before it nothing is counted, and torch refuses
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        (PROCESS / "clear_refs").write_text("5")  # VmHWM begins again at what is resident now


def peak_bytes(device: torch.device) -> int | None:
    """The most memory that was taken: by a GPU's allocator, else by this whole process, torch's libraries among it.

    What the allocator took of the GPU, not what it gave out: a recorded step keeps memory that no tensor has.
    None where the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    with suppress(OSError):
        if found := re.search(r"VmHWM:\s+(\d+) kB", (PROCESS / "status").read_text()):
            return int(found[1]) * 2**10
    return None


def out_of_memory(error: BaseException, device: torch.device) -> OutOfMemory:
    """Torch's message as an error with numbers: bytes asked for and bytes free, where it names them."""
    text = str(error)
    requested = _bytes_after(r"Tried to allocate", text) or _bytes_after(r"tried to allocate", text)
    free = _bytes_after(r"of which", text)
    sizes = "" if requested is None else f": {_readable(requested)} were asked for"
    sizes += "" if requested is None or free is None else f", {_readable(free)} were free"
    return OutOfMemory(f"{device} has too little memory{sizes}.", requested_bytes=requested, free_bytes=free)


def is_out_of_memory(error: BaseException, device: torch.device) -> bool:
    """Whether torch, or what it calls, ran out of memory. What a kernel did wrong is never taken for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    text = str(error)
    return any(words in text for words in OUT_OF_MEMORY) or (NO_WAY_TO_COMPUTE in text and _is_nearly_full(device))


def _is_nearly_full(device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    try:
        _, total = torch.cuda.mem_get_info(device)
        return free_bytes(device) < LITTLE_SHARE * total
    except RuntimeError:  # then memory is not all that it lacks
        return False


def _bytes_after(words: str, text: str) -> int | None:
    found = re.search(words + r" ([\d.]+) ?(bytes|[KMGT]iB)", text)
    return None if found is None else int(float(found[1]) * BYTES[found[2]])


def _readable(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:.0f} MiB"
