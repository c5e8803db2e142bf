"""Which part of a mean, a median or a difference is luck of the prompts: 95 % intervals over pictures.

mean, paired, median   a percentile bootstrap: pictures are drawn again with replacement, of pairs always both
share                  Wilson's, since 100 hits of 100 would leave a bootstrap nothing to vary
Student's              of a few values, at any confidence
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


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


def mean_interval(values: Sequence[float], *, resamples: int = 4000, seed: int = 0) -> Interval:
    """The mean and its interval.

    Args:
        values: one per picture.
        resamples: of the bootstrap.
        seed: of the resampling.

    Raises:
        ValueError: no values.
    """
    return bootstrapped(np.mean, values, resamples=resamples, seed=seed)


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


def bootstrapped(
    statistic: Callable[..., Any], *samples: Sequence[float], resamples: int = 4000, seed: int = 0
) -> Interval:
    """Any statistic of samples, as many each, whose values belong together; and its percentile bootstrap.

    Args:
        statistic: of the samples along an `axis`.
        samples: one value per picture.
        resamples: of the bootstrap.
        seed: of the resampling.

    Raises:
        ValueError: no values.
    """
    number = len(samples[0])
    if number == 0:
        raise ValueError("an interval needs at least one value")
    data = [np.asarray(sample, dtype=np.float64) for sample in samples]
    value = float(statistic(*data, axis=-1))
    if number == 1:
        return Interval(value, value, value, 1)
    from scipy.stats import bootstrap

    rng = np.random.default_rng(seed)
    found = bootstrap(data, statistic, paired=True, method="percentile", n_resamples=resamples, rng=rng)
    low, high = found.confidence_interval
    return Interval(value, float(low), float(high), number)


def replicated(value: float, replicates: Values, number: int) -> Interval:
    """A value with the interval of its replicates, so that those of several values can be of the same resamples.

    Args:
        value: of all N pictures.
        replicates: (R,), of resampled ones, see `resampled`; NaN where a resample has no value.
        number: N.
    """
    low, high = np.nanquantile(replicates, (0.025, 0.975))
    return Interval(value, float(low), float(high), number)


def resampled(number: int, resamples: int, seed: int = 0) -> NDArray[np.int64]:
    """Indices of bootstrap samples, (R, N): a function of its arguments alone, so methods share them."""
    return np.random.default_rng(seed).integers(0, number, (resamples, number))


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
    from scipy.stats import binomtest

    found = binomtest(int(sum(hits)), number)
    low, high = found.proportion_ci(method="wilson")
    return Interval(float(found.statistic), float(low), float(high), number)


def student_interval(values: Sequence[float], *, confidence: float, most: float | None = None) -> Interval:
    """Mean and interval by Student's t; one value is as uncertain as can be.

    Args:
        values: one a prompt.
        confidence: 0.99 for 99 %.
        most: the largest possible value.

    Raises:
        ValueError: no values.
    """
    number = len(values)
    if number == 0:
        raise ValueError("an interval needs at least one value")
    centre = float(np.mean(values))
    half = float("inf")
    if number > 1:
        from scipy.stats import t

        half = float(t.ppf((1 + confidence) / 2, number - 1) * np.std(values, ddof=1) / np.sqrt(number))
    high = centre + half
    return Interval(centre, centre - half, high if most is None else min(high, most), number)
