"""Intervals against numbers computed by hand."""

import numpy as np
import pytest

from hybridstitch.measure.intervals import (
    Interval,
    bootstrapped,
    mean_interval,
    paired_interval,
    replicated,
    resampled,
    share_interval,
    student_interval,
)


def test_an_interval_is_as_wide_as_the_mean_is_uncertain():
    values = np.random.default_rng(2).normal(3.0, 2.0, 400)
    found = mean_interval(values)
    assert found.mean == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert found.low < found.mean < found.high
    assert found.number == 400
    assert mean_interval([2.0, 2.0]) == (2.0, 2.0, 2.0, 2)
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([])


def test_a_pair_takes_the_luck_of_the_prompts_out():
    rng = np.random.default_rng(3)
    prompts = rng.normal(0.0, 5.0, 200)
    better, worse = prompts + 1 + rng.normal(0.0, 0.1, 200), prompts
    gap = paired_interval(better, worse)
    assert gap.excludes_zero
    assert gap.low < 1 < gap.high
    assert gap.high - gap.low < 0.05
    assert mean_interval(better).low < mean_interval(worse).high
    assert paired_interval(worse, better) == pytest.approx((-gap.mean, -gap.high, -gap.low, 200))
    with pytest.raises(ValueError, match="3 values cannot be paired with 2"):
        paired_interval([1, 2, 3], [1, 2])


def test_a_share_has_wilsons_interval():
    # Newcombe 1998, table I: 81 of 263, and 15 of 148.
    assert share_interval([True] * 81 + [False] * 182) == pytest.approx((0.3080, 0.2553, 0.3662, 263), abs=5e-5)
    assert share_interval([True] * 15 + [False] * 133) == pytest.approx((0.1014, 0.0624, 0.1605, 148), abs=5e-5)
    assert share_interval([True] * 100) == pytest.approx((1.0, 0.9630, 1.0, 100), abs=5e-5)
    assert share_interval([False] * 20).low == 0
    with pytest.raises(ValueError, match="at least one"):
        share_interval([])


def test_an_interval_is_student_s():
    """t = 9.925 for three values: mean 0.8, deviation 0.1."""
    found = student_interval([0.7, 0.8, 0.9], confidence=0.99)
    assert found == pytest.approx((0.8, 0.8 - 9.9248 * 0.1 / 3**0.5, 0.8 + 9.9248 * 0.1 / 3**0.5, 3), abs=1e-5)
    assert student_interval([0.9, 1.0, 0.95], confidence=0.99, most=1.0).high == 1.0
    assert student_interval([0.9], confidence=0.99).low == float("-inf")
    with pytest.raises(ValueError, match="at least one"):
        student_interval([], confidence=0.99)


def test_replicates_of_the_same_resamples_give_the_interval_of_a_mean():
    values = np.random.default_rng(5).normal(3.0, 2.0, 40)
    replicates = values[resampled(40, 4000)].mean(1)
    assert replicated(values.mean(), replicates, 40) == pytest.approx(mean_interval(values))


def test_a_statistic_of_two_samples_is_of_the_same_pictures_in_both():
    rng = np.random.default_rng(6)
    prompts = rng.uniform(1.0, 9.0, 50)

    def faster(a, b, axis):
        return np.median(a, axis=axis) / np.median(b, axis=axis)

    assert bootstrapped(faster, 2 * prompts, prompts) == pytest.approx((2.0, 2.0, 2.0, 50))
    assert bootstrapped(np.median, [4.0]) == (4.0, 4.0, 4.0, 1)


@pytest.mark.parametrize(
    ("low", "high", "clear"), [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.1, False), (0, 1, False)]
)
def test_an_interval_on_one_side_of_zero_excludes_it(low: float, high: float, clear: bool):
    assert Interval(0.0, low, high, 9).excludes_zero is clear
