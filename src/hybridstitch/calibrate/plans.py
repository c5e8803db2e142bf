"""Programs a word a step, at noise levels of their own: where a search of them begins, and how one is changed.

    words   L  S  H@M  R@M  -        one for each step, see `policies.program`
    levels  the pipeline's, shifted by s, or each step's σ (`policies.levels`)

A repeated prediction is a longer step of Euler's method, so programs of L and - are the large model alone with fewer
steps at any levels: they are searched just as hard as those of both models.
"""

import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ..errors import PolicyError
from ..policies.levels import shifted
from ..policies.methods import LargeOnly, Schedule, SmallOnly
from ..policies.policy import Policy
from ..policies.presets import FEW, STACKED
from ..policies.program import fill, segments, short
from ..policies.skip import Skip, drawn_steps
from ..recipe.between import repeated

SHIFTS = (2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
MASKS = (0.15, 0.3, 0.45)
WORDS = ("L", "S", *(f"{letter}@{mask:g}" for letter in "RH" for mask in MASKS), "-")
PLAIN = ("L", "-")
DRAWN, CARRIED = (0.0, 1.0), (0.95, 0.25)  # carry and follow: of the small model as it draws, and what serves best
MOST = 64  # steps
HEADS = (("S", "L"), ("S", "S", "L"), ("L", "S", "L"))  # of a shape
BLOCKS = (("R@0.3",), ("R@0.45", "R@0.15"))  # before each further large step of it
FEW_BLOCKS, MANY = 4, 12
EVERY = 3  # of the counts of large steps above `2 * FEW_BLOCKS` that are tried first
SHORT_BLOCKS = 2  # up to as many, also without the last large step
TRIES = 40  # changes until one comes out that is wanted


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy at a step count and noise levels.

    Attributes:
        policy: who draws what.
        steps: T′.
        shift, levels: of the noise; None leaves them to the pipeline.
    """

    policy: Policy
    steps: int
    shift: float | None = None
    levels: tuple[float, ...] | None = None

    @property
    def text(self) -> str:
        """The policy and the noise levels, for keys."""
        return str(self.policy) + noise_text(self.shift, self.levels)

    @property
    def words(self) -> list[str] | None:
        """A word a step, without counts; None of a policy that is no program."""
        if isinstance(self.policy, LargeOnly | SmallOnly):
            return ["L" if isinstance(self.policy, LargeOnly) else "S"] * self.steps
        if isinstance(self.policy, Skip):
            drawn = drawn_steps(self.policy, self.steps)
            return ["L" if step in drawn else "-" for step in range(self.steps)]
        if not isinstance(self.policy, Schedule):
            return None
        found = zip(segments(self.policy.program), fill(self.policy.program, self.steps), strict=True)
        masks = [(s.letter if s.ratio is None else f"{s.letter}@{s.ratio:g}", count) for s, count in found]
        return [word for word, count in masks for _ in range(count)]


def noise_text(shift: float | None, levels: Sequence[float] | None) -> str:
    """Noise levels, told apart by their text; nothing for the pipeline's own."""
    if levels is not None:
        return f" at {'/'.join(map(repr, levels))}"
    return "" if shift is None else f" at shift {shift!r}"


def planned(
    words: Sequence[str], shift: float | None, levels: tuple[float, ...] | None = None, like: Policy | None = None
) -> Candidate | None:
    """A candidate of these words, if it can be drawn as it is written.

    Args:
        words: one a step.
        shift, levels: of the noise.
        like: whose other options it has; None for masks with cached text.
    """
    if not 2 <= len(words) <= MOST or (words[-1] == "-" and levels is None and shift is not None):
        return None
    if any("@" in word and before[0] in "S-" for before, word in pairwise(words)):
        return None  # keys and values of the large model would be old: the step would be drawn whole
    if {*words} == {"L"}:
        return Candidate(LargeOnly(), len(words), shift, levels)
    if {*words} == {"S"}:
        return Candidate(SmallOnly(), len(words), shift, levels)
    program = short(words)
    policy = replace(like, program=program) if isinstance(like, Schedule) else Schedule(program, text="cached")
    if not {"S", "H"} & {word[0] for word in words}:
        policy = replace(policy, carry=DRAWN[0], follow=DRAWN[1])
    if not any("@" in word for word in words):
        policy = replace(policy, text="fresh")
    try:
        policy.check(len(words))
    except PolicyError:
        return None
    return Candidate(policy, len(words), shift, levels)


def spelled(program: str) -> list[str]:
    """A word a step of a program with counts: "L2 R2@0.3" is L, L, R@0.3, R@0.3."""
    return Candidate(Schedule(program), sum(int(s.count) for s in segments(program))).words or []


def first(steps: int) -> Iterator[Candidate]:
    """Where the search begins: what won before, and shapes like it of every length.

    Args:
        steps: T of the reference; at most as many are drawn.
    """
    for preset in FEW:
        assert isinstance(preset.policy, Schedule)
        yield from _at(spelled(preset.policy.program), [preset.shift])
    assert isinstance(STACKED.policy, Schedule)
    yield from _at(spelled(STACKED.policy.program), [None])
    for count in range(2, min(2 * FEW_BLOCKS + 1, steps)):
        yield from _at(["L"] * count, (3.0, 5.0))
    yield from counted(n for n in range(2, steps) if n <= 2 * FEW_BLOCKS or n % EVERY == 0)
    for blocks in range(1, MANY):
        for head in HEADS if blocks <= FEW_BLOCKS else HEADS[:1]:
            for block in BLOCKS if blocks <= FEW_BLOCKS else BLOCKS[:1]:
                whole = [*head, *([*block, "L"] * blocks)]
                yield from _at(whole, (5.0 if blocks <= FEW_BLOCKS else 3.0,))
                if blocks <= SHORT_BLOCKS:
                    yield from _at(whole[:-1], (5.0,))
    for head in HEADS:
        yield from _at(head, (5.0,))


def counted(counts: Iterable[int]) -> Iterator[Candidate]:
    """The large model in so many steps at the pipeline's levels, and the same with one of them repeated."""
    for count in counts:
        yield Candidate(LargeOnly(), count)
        if count > FEW_BLOCKS:
            yield Candidate(*repeated(count, count - 1))


def counts_beside(kept: Collection[Candidate], steps: int) -> Iterator[Candidate]:
    """Counts of large steps that were not tried first, beside those that are still kept.

    Args:
        kept: of all that was tried.
        steps: T of the reference.
    """
    near = {plan.steps + more for plan in kept if plan in {*counted([plan.steps])} for more in range(1 - EVERY, EVERY)}
    yield from counted(sorted(count for count in near if 2 * FEW_BLOCKS < count < steps))


def changed(parent: Candidate, dice: random.Random, *, plain: bool, levels: bool) -> Candidate | None:
    """A candidate with a place or two of it changed; None where nothing came out that can be drawn.

    Free levels belong to their words: where these are changed, a shift takes their place.

    Args:
        parent: a program.
        dice: decides.
        plain: of the large model alone.
        levels: also move single noise levels.
    """
    words, shift, free, like = parent.words, parent.shift, parent.levels, parent.policy
    if words is None:
        return None
    if levels and (free is not None or shift is not None) and dice.random() < 0.5:
        return moved(parent, dice)
    if free is not None:  # they belong to these words
        shift = dice.choice(SHIFTS)
    choice = PLAIN if plain else WORDS
    for _ in range(dice.choice((1, 1, 2))):
        place, kind = dice.randrange(len(words)), dice.random()
        if kind < 0.2:
            shift = dice.choice([s for s in (None, *SHIFTS) if s != shift])
        elif kind < 0.4:
            words[place] = dice.choice(choice)
        elif kind < 0.55:
            other = (place + dice.choice((1, 2))) % len(words)
            words[place], words[other] = words[other], words[place]
        elif kind < 0.75:
            words.insert(place, dice.choice(choice))
        elif kind < 0.9 and len(words) > 2:
            del words[place]
        elif not plain and isinstance(like, Schedule):
            carry, follow = CARRIED if like.carry == 0 else DRAWN
            like = replace(like, carry=carry, follow=follow)
    return planned(words, shift, like=like)


def moved(parent: Candidate, dice: random.Random) -> Candidate | None:
    """The same with one or two noise levels moved between their neighbours; repeats become longer steps first."""
    words = parent.words
    if words is None:
        return None
    found = list(parent.levels or ())
    if parent.levels is None:
        assert parent.shift is not None
        words, found = merged(words, parent.shift)
    if len(found) < 2:
        return None
    for _ in range(dice.choice((1, 1, 2))):
        place = dice.randrange(1, len(found))
        low, high = [*found, 0.0][place + 1], found[place - 1]
        found[place] = round(found[place] + dice.uniform(-0.5, 0.5) * (min(high - found[place], found[place] - low)), 5)
    if not all(a > b for a, b in pairwise([*found, 0.0])):
        return None
    return planned(words, None, tuple(found), like=parent.policy)


def split(parent: Candidate) -> Iterator[Candidate]:
    """The same with one step taken as two of half its length, for each step; nothing at the pipeline's own levels."""
    words, levels = parent.words, parent.levels
    if words is None or (levels is None and parent.shift is None):
        return
    if levels is None:
        assert parent.shift is not None
        words, levels = merged(words, parent.shift)
    for place, (high, low) in enumerate(pairwise([*levels, 0.0]), 1):
        finer = (*levels[:place], round((high + low) / 2, 5), *levels[place:])
        found = planned([*words[:place], words[place - 1], *words[place:]], None, finer, like=parent.policy)
        if found is not None:
            yield found


def merged(words: Sequence[str], shift: float) -> tuple[list[str], list[float]]:
    """The words without repeats, and their levels: a step that was repeated goes as far as all of them did."""
    spread = shifted(len(words), shift, own=1.0)
    kept = [place for place, word in enumerate(words) if word != "-"]
    return [words[place] for place in kept], [spread[place] for place in kept]


def _at(words: Sequence[str], shifts: Sequence[float | None]) -> Iterator[Candidate]:
    for shift in shifts:
        found = planned(words, shift)
        if found is not None:
            yield found
