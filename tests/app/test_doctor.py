"""What the doctor finds, and the remedy that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import doctor, machine
from app.machine import Device, Memory, Process
from app.settings import Settings
from engine import native
from tests.app.world import World, chain


def found(settings: Settings) -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in doctor.examine(settings)}


def test_a_new_home_lacks_nothing(tmp_path: Path) -> None:
    findings = found(Settings(home=tmp_path / "new"))
    assert all(finding.ok for finding in findings.values()), findings
    assert set(findings) >= {"memory", "workers", "private", "data", "tls", "disk", "redis", "database"}


def test_work_that_waits_without_a_worker_is_named(world: World) -> None:
    world.submit(world.person("ann"), chain("a", 2))
    finding = found(world.services.settings)["workers"]
    assert not finding.ok and "fadrm worker" in finding.detail and "1 steps wait" in finding.detail
    world.worker_online()
    assert found(world.services.settings)["workers"].detail == "1 online"


@pytest.mark.parametrize(
    ("name", "changes", "remedy"),
    [
        ("data", {"data_roots": (Path("/nowhere/at/all"),)}, "FADRM_DATA_ROOTS"),
        ("tls", {"public_url": "http://gpu.lab"}, "https://"),
        ("disk", {"reserve_share": 0.999999}, "FADRM_RESERVE_BYTES"),
        ("redis", {"redis_url": "redis://127.0.0.1:1/0"}, "FADRM_REDIS_URL"),
    ],
)
def test_each_fault_is_named_with_its_remedy(
    tmp_path: Path, name: str, changes: dict[str, object], remedy: str
) -> None:
    finding = found(Settings.model_validate({"home": tmp_path, **changes}))[name]
    assert (not finding.ok or finding.warns) and remedy in finding.detail


def test_a_home_that_others_may_read_is_a_fault(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert "chmod 700" in found(Settings(home=tmp_path))["private"].detail


def test_too_little_memory_and_strangers_on_a_gpu_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: Memory(2**30, 2**34))
    monkeypatch.setattr(machine, "gpus", lambda: [Device(id="cuda:0", name="H200", uuid="GPU-1")])
    monkeypatch.setattr(machine, "processes", lambda: {"GPU-1": [Process(pid=7, name="python3")]})
    finding = found(Settings(home=tmp_path))["memory"]
    assert finding.warns and "FADRM_MATCH_MEMORY=0" in finding.detail and "python3 (process 7)" in finding.detail


def test_a_missing_compiler_costs_recovery_time_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(Settings(home=tmp_path))["compiler"].detail.startswith("there is one")
    monkeypatch.setattr(native, "norms", lambda: None)
    finding = found(Settings(home=tmp_path))["compiler"]
    assert finding.ok and finding.warns and "apt install gcc" in finding.detail
    monkeypatch.setattr(machine, "gpus", lambda: [Device(id="cuda:0", name="H200", uuid="GPU-1")])
    finding = found(Settings(home=tmp_path))["compiler"]
    assert finding.warns and "recovery is slower" in finding.detail
