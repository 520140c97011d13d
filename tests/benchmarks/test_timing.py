"""The arithmetic of benchmarks."""

from __future__ import annotations

import pytest

from benchmarks.timing import Measured, Peaks, agree, between, compared, distance, limit_s, ratio, timed, unit_s


def _measured(*seconds: float, **more: object) -> Measured:
    return Measured.model_validate({"seconds": seconds, "first_s": 0.0} | more)


def test_what_comes_before_the_first_moment_is_counted_apart() -> None:
    seconds, first_s = between([(0.0, 0), (5.0, 10), (6.0, 20), (8.0, 30)])
    assert first_s == 5.0
    assert seconds == [pytest.approx(0.1), pytest.approx(0.2)]


def test_a_single_moment_is_all_there_is() -> None:
    assert between([(1.0, 0), (3.0, 4)]) == ([0.5], 2.0)


def test_a_measurement_ends_when_it_has_enough_and_not_before_three_moments() -> None:
    taken: list[int] = []

    def work() -> object:
        for units in range(1, 100):
            taken.append(units)
            yield units

    seconds, _ = timed(work(), enough_s=0.0, settle=lambda: None)  # type: ignore[arg-type]
    assert taken == [1, 2, 3]
    assert len(seconds) == 2


def test_work_that_takes_turns_is_measured_by_the_round() -> None:
    clock: list[int] = []
    seconds, _ = timed(iter(range(10, 90, 10)), enough_s=99.0, settle=lambda: clock.append(0), stride=4)
    assert len(clock) == 2  # of eight tellings
    assert len(seconds) == 1


def test_a_ratio_tells_medians_minima_and_each_round() -> None:
    slow = [_measured(4.0, 6.0), _measured(8.0, 8.0)]
    fast = [_measured(1.0, 1.0), _measured(2.0, 2.0)]
    found = ratio(slow, fast)
    assert (found.median, found.best, found.rounds) == (7.0 / 1.5, 4.0, [5.0, 4.0])
    assert unit_s(fast) == (1.5, 1.0)


def test_the_limit_is_that_of_what_takes_longer() -> None:
    peaks = Peaks(flop_per_s={"fp32": 100.0, "bf16": 1000.0}, bytes_per_s=40.0)
    assert limit_s(_measured(1.0, flop=200.0, map_values=10.0), peaks) == (2.0, "arithmetic")
    assert limit_s(_measured(1.0, flop=200.0, map_values=10.0, precision="bf16"), peaks) == (0.5, "bytes")


def test_numbers_that_differ_too_much_do_not_agree() -> None:
    assert distance([1.0, -3.0], [1.0, -3.4]) == pytest.approx(0.1)
    assert agree(compared({"images": [100.0, 200.0]}, {"images": [100.0, 200.3]}))
    assert not agree(compared({"images": [100.0, 200.0]}, {"images": [100.0, 205.0]}))


def test_sides_that_tell_other_things_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="images"):
        compared({"images": [1.0]}, {"logits": [1.0]})
    with pytest.raises(ValueError, match="shorter"):
        compared({"images": [1.0, 2.0]}, {"images": [1.0]})
