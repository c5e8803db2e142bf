"""Which rows of a search are worth more: those that none beats, that have a speed, or are about as close as wanted."""

from collections.abc import Sequence

from ..recipe.file import AS_CLOSE, NEAR
from .gaps import alone_as_close, of_one_make
from .plans import Candidate
from .table import BOTH, PLAIN, Standing, pareto

FIRST = 2  # prompts that every candidate draws
CLEARLY = 0.01  # closeness by which a faster one is clearly ahead after few prompts; or `AS_CLOSE` of what is lacked
SLACK = 0.03  # closeness by which a candidate may miss a request after the first prompts and still be tried on more


def thirds(slower: Standing, faster: Standing) -> list[Candidate]:
    """Two candidates between two rows of one make, where there are any."""
    found = of_one_make(slower, faster)
    return list(dict.fromkeys(found[len(found) * k // 3] for k in (1, 2))) if found else []


def unbeaten(rows: Sequence[Standing]) -> list[Standing]:
    """Rows that no faster one is clearly closer than."""
    kept, best = [], -1.0
    for row in sorted(rows, key=lambda row: -row.speed):
        if row.closeness >= best - min(CLEARLY, AS_CLOSE * (1 - row.closeness)):
            kept.append(row)
        best = max(best, row.closeness)
    return kept[::-1]


def worth_two(rows: Sequence[Standing], speed: float | None = None) -> list[Standing]:
    """Rows without those of both models where the large one alone has the speed and is about as close.

    Few prompts do not tell such rows apart, and one model is simpler.

    Args:
        rows: drawn on the same prompts.
        speed: wanted: only what has it takes the place of another.
    """
    alone = pareto(row for row in rows if row.kind in PLAIN)
    matched = [row for row in rows if row.kind in BOTH and alone_as_close(row, alone) is not None]
    front = pareto(row for row in rows if row not in matched)
    serving = [one for one in front if one.kind in PLAIN and (speed is None or has_speed(one, speed))]
    replaced = [row for row in matched if any(has_speed(one, row.speed) for one in serving)]
    return [row for row in rows if row not in replaced]


def has_speed(row: Standing, speed: float) -> bool:
    """Whether a row is near enough to a wanted speed to serve it."""
    return abs(row.speed / speed - 1) <= NEAR


def beside_speed(front: Sequence[Standing], speed: float) -> list[Standing]:
    """The nearest rows on either side of a wanted speed: they serve where whole calls take other times than priced."""
    slower = [row for row in front if row.speed < speed / (1 + NEAR)]
    faster = [row for row in front if row.speed > speed * (1 + NEAR)]
    return [*slower[-1:], *faster[:1]]


def around(rows: Sequence[Standing], closeness: float) -> list[Standing]:
    """The fastest rows that may be close enough, slowest first: those that miss by little, and some that do not."""
    front = pareto(rows)
    enough = [row for row in front if row.closeness >= closeness]
    missing = [row for row in front if closeness - SLACK <= row.closeness < closeness]
    return [*enough[-6:], *missing[:2]]
