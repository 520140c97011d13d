"""Triton's passes around a norm: right, compilable for GPUs of several kinds, and let do it only where they are right."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import engine
from engine import native, norms_cpu, passes
from engine.passes import Line, Pass
from tests.engine.norms import maps

CPU = torch.device("cpu")
INTERPRETED = Path(__file__).with_name("norms_interpreted.py")


@pytest.fixture(autouse=True)
def _asked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "_found", {})
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def test_interpreted_on_a_cpu_the_kernels_give_what_torch_gives() -> None:
    pytest.importorskip("triton")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-n",
        "0",
        "--noconftest",
        str(INTERPRETED),
    ]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, cwd=INTERPRETED.parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("capability", "dtype"), [(75, torch.float16), (80, torch.float32), (90, torch.bfloat16)])
def test_what_is_launched_compiles_for_a_gpu(
    capability: int, dtype: torch.dtype, compiled: Callable[[int], list[Any]]
) -> None:
    made = compiled(capability)
    from engine import norms_gpu

    for channels, added, ceiling in ((64, True, math.inf), (24, False, 6.0), (1, False, 0.0)):
        features = maps(2, channels, 5, 7, dtype=dtype)
        mean, scale, shift = torch.zeros(3, channels)
        line = Line(mean, scale, shift, ceiling, blocks=2, told=True)
        found = Pass.apply(features, features if added else None, line, norms_gpu)
        torch.autograd.grad(found, features, [torch.ones_like(one) for one in found])
    assert len(made) == 3 * 3 and all(one.asm["cubin"] for one in made)
    assert made[0].asm["ptx"].count("ld.global.v4") > 8  # 64 channels: whole vectors are read


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[Any]]:
    """For a GPU of that capability, where there need not be one: what would be launched is compiled and listed."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget

    from engine import norms_gpu

    made: list[Any] = []

    class Compiled:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: tuple[int]) -> Callable[..., None]:
            return lambda *given, **named: made.append(self.kernel.warmup(*given, grid=grid, **named))

    def for_gpu(capability: int) -> list[Any]:
        driver = SimpleNamespace(
            get_current_target=lambda: GPUTarget("cuda", capability, 32),
            get_current_device=lambda: capability,  # what is compiled is kept by device
            get_current_stream=lambda device: 0,
        )
        triton.runtime.driver.set_active(driver)
        for name in ("_forward", "_merge", "_backward"):
            monkeypatch.setattr(norms_gpu, name, Compiled(getattr(norms_gpu, name)))
        return made

    return for_gpu


def test_the_measure_of_a_way_that_is_right_is_far_below_what_is_allowed() -> None:
    assert native.norms() is not None
    for dtype in norms_cpu.NAMES:
        assert passes.distance_from_torch(norms_cpu, CPU, dtype) < passes.HELD_TO[dtype] / 3


def statistics_are_forgotten(**maps: Any) -> dict[str, Any]:
    return maps | {"told": None}


def a_rectifier_lets_everything_through(**maps: Any) -> dict[str, Any]:
    return maps | {"z": None if maps["z"] is None else torch.ones_like(maps["z"])}


def numbers_are_none(**maps: Any) -> dict[str, Any]:
    return maps | {"by_z": maps["by_z"] * math.nan}


def it_does_not_run(**maps: Any) -> dict[str, Any]:
    raise RuntimeError("Failed to find C compiler.\nPlease specify one.")


@pytest.mark.parametrize(
    ("mistake", "why"),
    [
        (statistics_are_forgotten, "Triton's are"),
        (a_rectifier_lets_everything_through, "Triton's are"),
        (numbers_are_none, "Triton's are nan from them on cpu in torch.float32"),
        (it_does_not_run, "norms are computed by torch: Failed to find C compiler."),
    ],
)
def test_what_is_not_right_on_a_gpu_is_left_to_torch_and_asked_once(
    mistake: Callable[..., dict[str, Any]],
    why: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = []

    def backward(line: Line, **maps: Any) -> None:
        asked.append(line)
        norms_cpu.backward(line, **mistake(**maps))

    stands_in(monkeypatch, SimpleNamespace(forward=norms_cpu.forward, backward=backward))
    assert passes.on_gpu(CPU, torch.float32) is None
    times = len(asked)
    assert passes.on_gpu(CPU, torch.float32) is None and len(asked) == times
    [told] = caplog.messages
    assert told.startswith("norms are computed by torch: ") and why in told and "\n" not in told


def stands_in(monkeypatch: pytest.MonkeyPatch, module: object) -> None:
    """For norms_gpu, where a GPU's passes are looked for."""
    monkeypatch.setitem(sys.modules, "engine.norms_gpu", module)
    monkeypatch.setattr(engine, "norms_gpu", module, raising=False)


def test_what_is_right_is_let_do_it_and_named_in_a_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda:0")
    assert passes.known(gpu) == "torch"
    stands_in(monkeypatch, norms_cpu)
    monkeypatch.setattr(passes, "distance_from_torch", lambda *_: 0.0)
    assert passes.on_gpu(gpu, torch.float32) is norms_cpu and passes.known(gpu) == "Triton"


def test_without_triton_torch_does_all(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delitem(sys.modules, "engine.norms_gpu", raising=False)
    monkeypatch.delattr(engine, "norms_gpu", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    assert passes.on_gpu(CPU, torch.float32) is None
    assert caplog.messages == ["norms are computed by torch: import of triton halted; None in sys.modules"]


def test_it_is_looked_for_even_where_nothing_has_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    stands_in(monkeypatch, norms_cpu)
    with torch.inference_mode():
        assert passes.on_gpu(CPU, torch.float32) is norms_cpu


def test_who_does_not_want_it_does_not_load_it() -> None:
    program = "import sys, engine.steps.recover; assert 'engine.norms_gpu' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=INTERPRETED.parents[2], check=True)
