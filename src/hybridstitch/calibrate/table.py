"""What is known of candidates so far, and which of them are worth more prompts.

`Row` is one candidate over the prompts it has drawn. Its interval is Student's of 99 %: of 95 % it would be too
narrow, because closeness is skewed (one prompt in thirty or so comes out far worse than the others, and a handful of
prompts may not hold one) and because the best of many is chosen. Successive halving: all candidates draw two prompts,
the better ones half of them, the best all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log, sqrt
from statistics import mean, stdev

from ..measure.intervals import Interval
from ..policies.methods import parse
from ..policies.policy import Policy
from ..recipe import kind_of
from .drawing import Score

STUDENT = (63.66, 9.92, 5.84, 4.60, 4.03, 3.71, 3.50, 3.36, 3.25, 3.17, 3.11, 3.05, 3.01, 2.98, 2.95)  # 99.5 %, 1-15
BUCKET = 1.2  # speeds within this factor compete for a place


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate and its scores.

    Attributes:
        policy: who draws what.
        steps: T′.
        kind: see `recipe.Point`.
        speed: of the reference's price, mean over prompts.
        scores: by prompt.
    """

    policy: Policy
    steps: int
    kind: str
    speed: float
    scores: tuple[Score, ...]

    @classmethod
    def of(cls, scores: Sequence[Score], reference_steps: int, reference_seconds: float) -> "Row":
        """From the scores of one candidate.

        Args:
            scores: at least one.
            reference_steps: T.
            reference_seconds: of the large model at T steps.
        """
        policy, steps = parse(scores[0].policy), scores[0].steps
        return cls(
            policy=policy,
            steps=steps,
            kind=kind_of(policy, steps, reference_steps),
            speed=reference_seconds / mean(score.seconds for score in scores),
            scores=tuple(sorted(scores, key=lambda score: score.prompt)),
        )

    @property
    def closeness(self) -> float:
        """Mean over prompts."""
        return mean(score.closeness for score in self.scores)

    @property
    def interval(self) -> Interval:
        """Of the closeness, 99 %."""
        return student([score.closeness for score in self.scores], most=1.0)

    @property
    def psnr(self) -> Interval:
        """In dB, 99 %."""
        return student([score.psnr for score in self.scores])


def student(values: Sequence[float], most: float | None = None) -> Interval:
    """Mean and 99 % interval by Student's t; one value is as uncertain as can be.

    Args:
        values: one a prompt.
        most: the largest possible value.
    """
    centre = mean(values)
    if len(values) == 1:
        return Interval(centre, float("-inf"), centre if most is None else most, 1)
    quantile = STUDENT[min(len(values) - 1, len(STUDENT)) - 1]
    half = quantile * stdev(values) / sqrt(len(values))
    return Interval(centre, centre - half, centre + half if most is None else min(centre + half, most), len(values))


def best_by_speed(rows: Iterable[Row], each: int) -> list[Row]:
    """The closest `each` rows of every span of speeds, spans of a factor 1.2, slowest first."""
    spans: dict[int, list[Row]] = {}
    for row in rows:
        spans.setdefault(round(log(row.speed) / log(BUCKET)), []).append(row)
    return [row for span in sorted(spans) for row in sorted(spans[span], key=lambda r: (-r.closeness, -r.speed))[:each]]


def best_by_kind(rows: Iterable[Row]) -> dict[str, Row]:
    """The closest row of every kind."""
    best: dict[str, Row] = {}
    for row in sorted(rows, key=lambda r: (-r.closeness, -r.speed)):
        best.setdefault(row.kind, row)
    return best


def pareto(rows: Iterable[Row]) -> list[Row]:
    """Rows that no other is both faster and closer than, slowest first."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda r: (-r.speed, -r.closeness)):
        if not front or row.closeness > front[-1].closeness:
            front.append(row)
    return front[::-1]
