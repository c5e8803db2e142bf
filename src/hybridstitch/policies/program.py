"""The language of fixed programs: `"L10 H15@0.3 S25"`, or in shares `"L20% H30%@0.3 S*"`.

A segment is a letter (L large, S small, H hybrid, R refresh, - repeat), a count (steps, a share of them, or `*` for
the rest; one step if missing) and for H and R a mask after `@`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import groupby
from math import floor

from ..errors import PolicyError
from .options import check_ratio

HALF = Fraction(1, 2)  # shares are exact: 29 % of 50 steps are 14.5, rounded up, which floats would miss
SEGMENT = re.compile(r"(?P<letter>[LSHR-])(?P<count>\d+(?:\.\d+)?%|\d+|\*)?(?:@(?P<ratio>\d*\.?\d+))?")


@dataclass(frozen=True, slots=True)
class Segment:
    """One word of a program: who draws, for how many steps (as written), with which mask."""

    letter: str
    count: str
    ratio: float | None


@lru_cache(maxsize=64)
def segments(program: str) -> tuple[Segment, ...]:
    """Read a program.

    Raises:
        PolicyError: a word that is no segment, a mask where none belongs or none where one does, two `*`.
    """
    found = []
    for word in program.split():
        match = SEGMENT.fullmatch(word)
        if match is None:
            raise PolicyError(
                f"{word!r} in the program {program!r} is not a segment; write L10, S*, H30%@0.3, R5@0.3 or -2"
            )
        letter, ratio = match["letter"], match["ratio"]
        if (letter in "HR") != (ratio is not None):
            raise PolicyError(
                f"{word!r} in the program {program!r}: H and R need a mask (H10@0.3), L, S and - have none"
            )
        if ratio is not None:
            check_ratio(float(ratio))
        found.append(Segment(letter, match["count"] or "1", None if ratio is None else float(ratio)))
    if not found:
        raise PolicyError("the program is empty; write for example 'L10 H15@0.3 S25'")
    if sum(segment.count == "*" for segment in found) > 1:
        raise PolicyError(f"the program {program!r} has more than one '*'; only one segment can take the rest")
    return tuple(found)


def short(words: Sequence[str]) -> str:
    """A program with repeated words counted: "L L R@0.3" is "L2 R@0.3"."""
    runs = [(word, len([*same])) for word, same in groupby(words)]
    return " ".join(word[0] + (str(n) if n > 1 else "") + word[1:] for word, n in runs)


@lru_cache(maxsize=64)
def fill(program: str, steps: int) -> tuple[int, ...]:
    """Steps of each segment, summing to T. Shares are rounded cumulatively, so that they add up.

    Raises:
        PolicyError: the program fills more or fewer than `steps` steps.
    """
    counts: list[int | None] = []
    share = Fraction(0)
    for segment in segments(program):
        if segment.count == "*":
            counts.append(None)
        elif segment.count.endswith("%"):
            before, share = share, share + Fraction(segment.count[:-1]) / 100
            counts.append(floor(share * steps + HALF) - floor(before * steps + HALF))
        else:
            counts.append(int(segment.count))
    given = sum(c for c in counts if c is not None)
    if given > steps or (given < steps and None not in counts):
        raise PolicyError(
            f"the program {program!r} fills {given} steps, this run has {steps}; change a count, or let one segment "
            "take the rest with '*'"
        )
    return tuple(steps - given if c is None else c for c in counts)


def segment_at(program: str, step: int, steps: int) -> tuple[int, Segment]:
    """Index and segment of one step.

    Args:
        program: the program.
        step: 0 … T−1.
        steps: T.

    Raises:
        PolicyError: as `fill`.
    """
    end = 0
    for index, count in enumerate(fill(program, steps)):
        end += count
        if step < end:
            return index, segments(program)[index]
    raise PolicyError(f"step {step} lies beyond the {steps} steps of {program!r}")


def check_start(program: str, steps: int, *, unmasked: int) -> None:
    """Refuse a program that builds on a prediction or a change before there is one.

    Args:
        program: the program.
        steps: T.
        unmasked: steps that must have been drawn whole before the first mask.

    Raises:
        PolicyError: as `fill`, and see above.
    """
    letters = [segment_at(program, step, steps)[1].letter for step in range(min(unmasked, steps))]
    if letters and letters[0] in "R-":
        raise PolicyError(f"{program!r} repeats a prediction at step 0, where there is none; begin with L or S")
    if any(letter in "HR" for letter in letters):
        raise PolicyError(
            f"{program!r} asks for a mask before step {unmasked}, but a mask needs the change between two steps; "
            f"begin with at least {unmasked} steps of L or S"
        )
