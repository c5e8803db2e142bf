"""What is known of candidates so far, and which of them are worth more prompts.

`Standing` is one candidate over the prompts it has drawn. Its interval is Student's of 99 %: of 95 % it would be too
narrow, because closeness is skewed (one prompt in thirty or so comes out far worse than the others, and a handful of
prompts may not hold one) and because the best of many is chosen. Successive halving: all candidates draw two prompts,
the better ones half of them, the best all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log
from statistics import mean

from ..measure.intervals import Interval, student_interval
from ..policies.parse import parse
from ..policies.policy import Policy
from ..recipe import kind_of
from .compare import Score
from .plans import Candidate

BUCKET, NARROW = 1.2, 1.08  # speeds within this factor compete for a place, up to `WIDE` and from it on
WIDE = BUCKET**5
QUICK = 6  # times the reference's speed, from which on a candidate takes little
PLAIN = ("large", "fewer steps")  # kinds that the large model draws alone
BOTH = ("whole steps", "region mask")  # kinds that two models draw, or one on a mask


@dataclass(frozen=True, slots=True)
class Standing:
    """A candidate and its scores.

    Attributes:
        policy: who draws what.
        steps: T′.
        kind: see `recipe.Point`.
        speed: of the reference's price, mean over prompts.
        scores: by prompt.
        shift, levels: of the noise; None leaves them to the pipeline.
    """

    policy: Policy
    steps: int
    kind: str
    speed: float
    scores: tuple[Score, ...]
    shift: float | None = None
    levels: tuple[float, ...] | None = None

    @classmethod
    def of(cls, scores: Sequence[Score], reference_steps: int, reference_seconds: float) -> "Standing":
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
            shift=scores[0].shift,
            levels=scores[0].levels,
        )

    @property
    def candidate(self) -> Candidate:
        """What was drawn."""
        return Candidate(self.policy, self.steps, self.shift, self.levels)

    @property
    def closeness(self) -> float:
        """Mean over prompts."""
        return mean(score.closeness for score in self.scores)

    @property
    def interval(self) -> Interval:
        """Of the closeness, 99 %."""
        return student_interval([score.closeness for score in self.scores], confidence=0.99, most=1.0)

    @property
    def psnr(self) -> Interval:
        """In dB, 99 %."""
        return student_interval([score.psnr for score in self.scores], confidence=0.99)


def best_by_speed(rows: Iterable[Standing], each: int, narrow: float = WIDE) -> list[Standing]:
    """The closest `each` rows of every span of speeds, slowest first; `narrow` is that of `span_of`."""
    spans: dict[int, list[Standing]] = {}
    for row in rows:
        spans.setdefault(span_of(row.speed, narrow), []).append(row)
    return [row for span in sorted(spans) for row in sorted(spans[span], key=lambda r: (-r.closeness, -r.speed))[:each]]


def span_of(speed: float, narrow: float = WIDE) -> int:
    """The number of a span of speeds: wide where programs lie between others (`recipe.between`), then narrow.

    Args:
        speed: in times the reference's.
        narrow: the speed from which on spans are narrow, and the middle of the span of number 0.
    """
    return round(log(speed / narrow) / log(BUCKET if speed < narrow else NARROW))


def best_by_kind(rows: Iterable[Standing]) -> dict[str, Standing]:
    """The closest row of every kind."""
    best: dict[str, Standing] = {}
    for row in sorted(rows, key=lambda r: (-r.closeness, -r.speed)):
        best.setdefault(row.kind, row)
    return best


def pareto(rows: Iterable[Standing]) -> list[Standing]:
    """Rows that no other is both faster and closer than, slowest first."""
    front: list[Standing] = []
    for row in sorted(rows, key=lambda r: (-r.speed, -r.closeness)):
        if not front or row.closeness > front[-1].closeness:
            front.append(row)
    return front[::-1]
