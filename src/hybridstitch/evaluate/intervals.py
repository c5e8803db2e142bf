"""Bootstrap intervals over pictures: which part of a difference is luck of the prompts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean with its 95 % percentile-bootstrap interval over N values."""

    mean: float
    low: float
    high: float
    number: int

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def mean_interval(values: Sequence[float], *, resamples: int = 4000, seed: int = 0) -> Interval:
    """The mean and its interval.

    Args:
        values: one per picture; for a paired comparison, the differences.
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
