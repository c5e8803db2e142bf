"""Speeds between two winners: what might serve them, see `recipe.between`."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import ceil, exp, log

from ..recipe.between import between, variants
from ..recipe.file import NEAR
from .plans import Candidate
from .table import Standing

WIDEST = 2 * NEAR  # of a gap in which every speed is near one of its ends


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


def of_one_make(slower: Standing, faster: Standing) -> list[Candidate]:
    """Programs between two rows of one make at the same shift, slowest first; none where they are not."""
    if slower.shift != faster.shift or slower.levels or faster.levels:
        return []
    found = between((slower.policy, slower.steps), (faster.policy, faster.steps))
    return [Candidate(policy, steps, slower.shift) for policy, steps in found]


def fillers(
    slower: Standing, faster: Standing, speed: float, speed_of: Callable[[Candidate], float]
) -> Iterator[Candidate]:
    """Candidates of about a speed between two winners.

    Args:
        slower, faster: the winners.
        speed: wanted.
        speed_of: tells a candidate's.
    """
    options = [of_one_make(slower, faster)]
    for winner in (slower, faster):
        found = variants(winner.policy, winner.steps)
        options.append([Candidate(policy, steps, winner.shift, winner.levels) for policy, steps in found])
    for group in options:
        if group:
            best = min(group, key=lambda plan: abs(log(speed_of(plan) / speed)))
            if abs(speed_of(best) / speed - 1) <= NEAR / 2:
                yield best
