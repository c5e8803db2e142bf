"""A score of N pictures: its value, its interval, and which two scores may be compared.

The unit of luck is the prompt. `resampled` draws the same prompts again for every method, so the replicates of two
methods are paired, and the interval of a difference is read off the differences of their replicates.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from ..measure.intervals import Interval, Values, replicated, resampled
from .pictures import Picture, References, ScoreError

Better = Literal["higher", "lower"]
Wants = Literal["prompts", "pairs", "set"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """One metric of N pictures.

    Attributes:
        metric: its name: "KID-mini".
        better: "higher" or "lower".
        number: N.
        references: what they were compared with, with its digest; "" for nothing but the prompts.
        numerics: extractor, dtype, resize and scale.
        value: of all N pictures.
        replicates: (R,), of resampled prompts, the same ones for every method.
        each: (N,), one a picture; None where the metric is one of sets.
        note: what a reader must know, or "".
    """

    metric: str
    better: Better
    number: int
    references: str
    numerics: str
    value: float
    replicates: Values
    each: Values | None = None
    note: str = ""

    @property
    def interval(self) -> Interval:
        """The value with its 95 % interval."""
        return replicated(self.value, self.replicates, self.number)

    def ahead(self, other: "Scores") -> Interval:
        """By how much this one is better than another method on the same prompts; positive is better.

        Args:
            other: of the same metric, prompts and references.

        Raises:
            ScoreError: another metric, N, references or numerics.
        """
        self._check(other)
        sign = 1.0 if self.better == "higher" else -1.0
        return replicated(sign * (self.value - other.value), sign * (self.replicates - other.replicates), self.number)

    def _check(self, other: "Scores") -> None:
        if self.metric != other.metric:
            raise ScoreError(f"{self.metric} and {other.metric} are different metrics")
        if self.number != other.number:
            raise ScoreError(
                f"{self.metric} of {self.number} pictures cannot be compared with that of {other.number}: its bias "
                f"depends on N; score both on the same {min(self.number, other.number)} prompts"
            )
        for what in ("references", "numerics"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs:
                raise ScoreError(f"{self.metric} was measured with other {what}: {mine!r} and {theirs!r}")
        if len(self.replicates) != len(other.replicates):
            raise ScoreError(
                f"{self.metric} has {len(self.replicates)} and {len(other.replicates)} resamples; use the same number"
            )


class Metric(Protocol):
    """The thin protocol of all metrics: (images, prompts, references) → scores.

    Attributes:
        name: as printed.
        wants: what it compares pictures with: "prompts", "pairs" (matched references) or a "set".
    """

    @property
    def name(self) -> str:
        """See the class."""
        ...

    @property
    def wants(self) -> Wants:
        """See the class."""
        ...

    def __call__(self, images: list[Picture], prompts: list[str], references: References | None = None) -> Scores:
        """Score N pictures.

        Args:
            images: (H, W, 3), uint8 each.
            prompts: what they were drawn from.
            references: None where the metric looks at prompts only.

        Raises:
            ScoreError: they do not fit together.
        """
        ...


def mean_score(
    values: Values, *, metric: str, better: Better, references: str, numerics: str, resamples: int = 2000
) -> Scores:
    """Scores of a metric that has one value a picture: their mean.

    Args:
        values: (N,).
        metric, better, references, numerics: see `Scores`.
        resamples: R.
    """
    return Scores(
        metric=metric,
        better=better,
        number=len(values),
        references=references,
        numerics=numerics,
        value=float(values.mean()),
        replicates=values[resampled(len(values), resamples)].mean(1),
        each=values,
    )


def check(images: list[Picture], prompts: list[str], references: References | None, wants: Wants, name: str) -> None:
    """Refuse what cannot be scored.

    Raises:
        ScoreError: no pictures, another number of prompts, or references that do not fit.
    """
    if not images:
        raise ScoreError(f"{name} needs pictures, none were given")
    if len(images) != len(prompts):
        raise ScoreError(f"{name}: {len(images)} pictures and {len(prompts)} prompts; each picture has one prompt")
    if wants == "prompts":
        return
    if references is None or not references.pictures:
        raise ScoreError(f"{name} needs references, none were given")
    if wants == "pairs" and not references.matched:
        raise ScoreError(f"{name} compares picture by picture; {references.name} are not matched to the prompts")
    if references.matched and len(references.pictures) != len(images):
        raise ScoreError(f"{name}: {len(images)} pictures and {len(references.pictures)} matched references")
    if wants == "set" and min(len(images), len(references.pictures)) < 2:
        raise ScoreError(f"{name} compares distributions, and one picture is not enough; give at least 2 (better 96)")
    if wants == "pairs":
        for place, (image, reference) in enumerate(zip(images, references.pictures, strict=True)):
            if image.shape != reference.shape:
                raise ScoreError(f"{name}: picture {place} is {image.shape}, its reference {reference.shape}")
