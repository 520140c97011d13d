"""A job on so many workers, on paper: closed forms."""

from __future__ import annotations

import pytest

from benchmarks.scale import STEP_S, longest_chain_s, on_paper, planned, seconds_of, simulated, table
from engine.plan import Plan, Step, StepKind

RATES = on_paper("ten operations a second", 10.0)


def step(key: str, *needs: str, flop: float = 1000.0, kind: StepKind = StepKind.RECOVER, size_bytes: int = 0) -> Step:
    roles = {f"images.{index}": need for index, need in enumerate(needs)}
    return Step(key=key, kind=kind, title=key, params={}, needs=roles, flop=flop, size_bytes=size_bytes)


def job(*steps: Step) -> Plan:
    return Plan(steps=steps, rows=(), package=steps[-1].key)


def test_steps_side_by_side_are_shared_out_and_a_chain_is_not() -> None:
    wide, chain = job(*map(step, "abcd")), job(step("a"), step("b", "a"), step("c", "b"))
    assert simulated(wide, RATES, [1.0]).seconds == pytest.approx(4 * (100 + STEP_S))
    assert simulated(wide, RATES, [1.0] * 2).seconds == pytest.approx(2 * (100 + STEP_S))
    assert simulated(wide, RATES, [1.0] * 2).busy_share == pytest.approx(1)
    for workers in (1, 3):
        assert simulated(chain, RATES, [1.0] * workers).seconds == pytest.approx(longest_chain_s(chain, RATES))


def test_a_step_begins_when_all_that_it_needs_is_done() -> None:
    course = simulated(job(step("a"), step("b", flop=500), step("c", "a", "b")), RATES, [1.0] * 2)
    assert course.seconds == pytest.approx(2 * (100 + STEP_S))
    assert course.waited_s == pytest.approx(50 + 100 + STEP_S)  # after b until a is done, and beside c


def test_a_slow_worker_is_waited_for_at_the_end() -> None:
    assert simulated(job(*map(step, "ab")), RATES, [1.0, 0.5]).seconds == pytest.approx(200 + STEP_S)


def test_only_what_is_looked_at_is_read_of_the_real_images() -> None:
    data = step("data", kind=StepKind.PREPARE, size_bytes=1000)
    select, recover = step("s", "data", kind=StepKind.SELECT), step("r", "data")
    known = {"data": data}
    assert seconds_of(select, RATES, known) > seconds_of(recover, RATES, known) == 100 + STEP_S


def test_the_papers_largest_job_is_told_as_a_table() -> None:
    imagenet = planned("imagenet-1k-ipc50-fadrm-paper", "imagenet-1k")
    lines = table("ImageNet-1K", imagenet, on_paper("a GPU", 1e14), (1, 64)).splitlines()
    assert "50 recover" in lines[0] and len({line.count("|") for line in lines[2:]}) == 1
    assert (
        longest_chain_s(imagenet, on_paper("a GPU", 1e14)) < simulated(imagenet, on_paper("", 1e14), [1.0] * 8).seconds
    )
