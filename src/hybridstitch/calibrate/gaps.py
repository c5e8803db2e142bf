"""What the front lacks: speeds between two winners (see `recipe.between`), and the large model alone at theirs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from math import ceil, exp, inf, log

from ..policies.methods import Schedule
from ..policies.skip import Skip
from ..recipe.between import between, variants
from ..recipe.file import AS_CLOSE, NEAR
from .plans import WORDS, Candidate, planned, split
from .table import BOTH, PLAIN, QUICK, Standing, pareto

WIDEST = 2 * NEAR  # of a gap in which every speed is near one of its ends
QUICK_WIDEST = 0.05  # of one among quick plans, whose calls are short and so are measured less exactly
SHORT = 12  # words of programs of which one is changed
EDITS = 3  # of each kind of them, of a speed


def speeds_between(winners: Sequence[Standing], slowest: float) -> list[tuple[Standing, Standing, float]]:
    """Pairs of neighbouring winners that lie too far apart, and a speed in between; several where one is not enough.

    Args:
        winners: by speed, slowest first.
        slowest: speeds from which gaps matter.
    """
    found = []
    for slower, faster in pairwise(winners):
        wide, widest = log(faster.speed / slower.speed), WIDEST if slower.speed < QUICK else QUICK_WIDEST
        parts = ceil(wide / log(1 + widest)) if slower.speed >= slowest else 1
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
        yield from _nearest(group, speed, speed_of, within=NEAR / 2)


def edited(slower: Standing, faster: Standing, speed: float, speed_of: Callable[[Candidate], float]) -> list[Candidate]:
    """Programs of about a speed near to two winners of few steps.

    First the faster one with a step taken as two, which is rarely less close; then those that are a word away from one
    of both, most large steps first.

    Args:
        slower, faster: the winners.
        speed: wanted.
        speed_of: tells a candidate's.
    """
    found: dict[Candidate, tuple[int, float]] = {}
    for winner in (slower, faster):
        words = winner.candidate.words
        if words is None or winner.levels is not None or len(words) > SHORT:
            continue
        for changed in _a_word_away(words):
            plan = planned(changed, winner.shift, like=winner.policy)
            if plan is not None and abs(speed_of(plan) / speed - 1) <= NEAR:
                found[plan] = -changed.count("L"), abs(log(speed_of(plan) / speed))
    finer = [plan for plan in split(faster.candidate) if plan.steps <= SHORT]
    finer = [plan for plan in finer if abs(speed_of(plan) / speed - 1) <= NEAR]
    return [*finer[:EDITS], *sorted(found, key=found.__getitem__)[:EDITS]]


def alike(one: Candidate, other: Candidate, speed_of: Callable[[Candidate], float]) -> bool:
    """Whether two differ by little: the same words but for the sizes of masks, at the same levels and about one speed.

    Args:
        one, other: candidates.
        speed_of: tells a candidate's.
    """
    shapes = [_shape_of(plan) for plan in (one, other)]
    return None not in shapes and shapes[0] == shapes[1] and abs(speed_of(one) / speed_of(other) - 1) <= NEAR / 4


def _shape_of(plan: Candidate) -> tuple[object, ...] | None:
    """What a plan is but for the sizes of its masks; None of a policy that is no program."""
    policy = replace(plan.policy, program="L") if isinstance(plan.policy, Schedule) else None
    letters = None if plan.words is None else [word[0] for word in plan.words]
    return None if letters is None else (letters, policy, plan.shift, plan.levels)


def alone_as_close(row: Standing, alone: Sequence[Standing]) -> tuple[Standing, Standing] | None:
    """The two rows of the large model alone between which it is likely about as close as a row of both, or None.

    Args:
        row: of both models.
        alone: the front of the large model alone, slowest first, drawn on the same prompts.
    """
    for slower, faster in pairwise(alone):
        if slower.speed <= row.speed <= faster.speed:
            missing = row.closeness - closeness_between(slower, faster, row.speed)
            return (slower, faster) if missing <= AS_CLOSE * (1 - row.closeness) else None
    return None


def closeness_between(slower: Standing, faster: Standing, speed: float) -> float:
    """What is likely at a speed between two rows."""
    share = log(speed / slower.speed) / log(faster.speed / slower.speed)
    return slower.closeness + share * (faster.closeness - slower.closeness)


def rivals(
    winners: Sequence[Standing], rows: Sequence[Standing], speed_of: Callable[[Candidate], float]
) -> Iterator[Candidate]:
    """The large model alone at speeds of winners of both, where it is likely about as close.

    Args:
        winners: of the front.
        rows: drawn on the same prompts.
        speed_of: tells a candidate's.
    """
    alone = pareto(row for row in rows if row.kind in PLAIN)
    for winner in winners:
        ends = alone_as_close(winner, alone) if winner.kind in BOTH else None
        if ends is not None:
            mixed = of_one_make(*ends)  # few counts lie between two that are near: the nearest, however far
            yield from _nearest(mixed, winner.speed, speed_of, within=inf)
            for row in () if mixed else ends:
                yield from _nearest(_of_other_counts(row), winner.speed, speed_of, within=NEAR)


def _nearest(
    plans: Sequence[Candidate], speed: float, speed_of: Callable[[Candidate], float], *, within: float
) -> Iterator[Candidate]:
    """The plan that is nearest to a speed, if it is near enough."""
    best = min(plans, key=lambda plan: abs(log(speed_of(plan) / speed)), default=None)
    if best is not None and abs(speed_of(best) / speed - 1) <= within:
        yield best


def _of_other_counts(row: Standing) -> list[Candidate]:
    """A row of the large model alone with other counts of drawn steps."""
    other = [one for one in variants(row.policy, row.steps) if isinstance(one[0], Skip)]
    return [Candidate(policy, steps, row.shift, row.levels) for policy, steps in other]


def _a_word_away(words: Sequence[str]) -> Iterator[list[str]]:
    """With a word left out, exchanged or put in."""
    for place in range(len(words)):
        yield [*words[:place], *words[place + 1 :]]
        for word in WORDS:
            yield [*words[:place], word, *words[place + 1 :]]
            yield [*words[:place], word, *words[place:]]
