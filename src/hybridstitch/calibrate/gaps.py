"""Speeds between two winners: what might serve them.

Whole words make prices that lie apart. In between lie programs of one make (`recipe.point.between`), and the winners
themselves with smaller or larger masks, whose price moves with the share of tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import ceil, exp, log

from ..recipe.file import NEAR
from ..recipe.point import between
from .plans import Candidate, planned
from .table import Standing

WIDEST = 2 * NEAR  # of a gap in which every speed is near one of its ends
SMALLEST, LARGEST = 0.05, 0.9  # masks
FACTORS = tuple(exp(place / 50) for place in range(-35, 36))  # half as large to twice


def speeds_between(winners: Sequence[Standing], slowest: float) -> list[tuple[Standing, Standing, float]]:
    """Pairs of neighbouring winners that lie too far apart, and a speed in between; several where one is not enough.

    Args:
        winners: by speed, slowest first.
        slowest: speeds from which gaps matter.
    """
    found = []
    for slower, faster in pairwise(winners):
        wide = log(faster.speed / slower.speed)
        parts = ceil(wide / log(1 + WIDEST)) if slower.speed >= slowest else 1
        found += [(slower, faster, slower.speed * exp(wide * part / parts)) for part in range(1, parts)]
    return found


def fillers(
    slower: Standing, faster: Standing, speed: float, speed_of: Callable[[Candidate], float]
) -> Iterator[Candidate]:
    """Candidates of about a speed between two winners.

    Args:
        slower, faster: the winners.
        speed: wanted.
        speed_of: tells a candidate's.
    """
    same = slower.shift == faster.shift and slower.levels is None and faster.levels is None
    one_make = between((slower.policy, slower.steps), (faster.policy, faster.steps)) if same else []
    options = [[Candidate(policy, steps, slower.shift) for policy, steps in one_make]]
    options += [list(resized(winner.candidate)) for winner in (slower, faster)]
    for group in options:
        if group:
            best = min(group, key=lambda plan: abs(log(speed_of(plan) / speed)))
            if abs(speed_of(best) / speed - 1) <= NEAR / 2:
                yield best


def resized(plan: Candidate) -> Iterator[Candidate]:
    """A plan with all its masks smaller, and larger; nothing where it has none."""
    words = plan.words or []
    if not any("@" in word for word in words):
        return
    for factor in FACTORS:
        found = planned([_resized(word, factor) for word in words], plan.shift, plan.levels, like=plan.policy)
        if found is not None:
            yield found


def _resized(word: str, factor: float) -> str:
    letter, _, mask = word.partition("@")
    return f"{letter}@{min(max(float(mask) * factor, SMALLEST), LARGEST):.3g}" if mask else word
