"""Bootstrap intervals over pictures: which part of a mean, or of a paired difference, is luck of the prompts.

A percentile bootstrap: pictures are drawn again with replacement; of a pair of methods, always both of a prompt.
Shares have Wilson's interval, since 100 hits of 100 would leave a bootstrap nothing to vary:

    (p + z²/2N ± z √(p (1 − p)/N + z²/4N²)) / (1 + z²/N),  z = 1.96
"""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean with its 95 % interval over N values."""

    mean: float
    low: float
    high: float
    number: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


Z = 1.96  # standard deviations either side of a normal's mean that hold 95 %


def mean_interval(values: Sequence[float], *, resamples: int = 4000, seed: int = 0) -> Interval:
    """The mean and its interval.

    Args:
        values: one per picture.
        resamples: of the bootstrap.
        seed: of the resampling.

    Raises:
        ValueError: no values.
    """
    if len(values) == 0:
        raise ValueError("an interval needs at least one value")
    array = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(0, len(array), (resamples, len(array)))
    low, high = np.quantile(array[picks].mean(1), (0.025, 0.975))
    return Interval(float(array.mean()), float(low), float(high), len(array))


def paired_interval(
    values: Sequence[float], others: Sequence[float], *, resamples: int = 4000, seed: int = 0
) -> Interval:
    """The mean of `values - others`, prompt by prompt, and its interval.

    Args:
        values: one per prompt.
        others: of the same prompts, in the same order.
        resamples: of the bootstrap.
        seed: of the resampling.

    Raises:
        ValueError: no values, or not as many on both sides.
    """
    if len(values) != len(others):
        raise ValueError(f"{len(values)} values cannot be paired with {len(others)}; score the same prompts with both")
    gaps = np.asarray(values, dtype=np.float64) - np.asarray(others, dtype=np.float64)
    return mean_interval(gaps.tolist(), resamples=resamples, seed=seed)


def share_interval(hits: Sequence[float]) -> Interval:
    """The share of hits and its Wilson interval.

    Args:
        hits: one per picture, true or false, 1 or 0.

    Raises:
        ValueError: no values.
    """
    number = len(hits)
    if number == 0:
        raise ValueError("an interval needs at least one value")
    share = sum(hits) / number
    middle = share + Z**2 / (2 * number)
    reach = Z * sqrt(share * (1 - share) / number + Z**2 / (4 * number**2))
    low, high = ((middle + side * reach) / (1 + Z**2 / number) for side in (-1, 1))
    return Interval(share, max(low, 0.0), min(high, 1.0), number)
