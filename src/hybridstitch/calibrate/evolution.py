"""Generations of plans: the best of every span of speeds, changed, as many as a generation may cost.

Spans get the same time each, so fast ones get more children. Half of the children are of the large model alone.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import SchedulerError
from ..measure.price import Prices
from ..pair.asking import takes_levels
from ..policies.levels import own_shift
from ..policies.methods import Schedule
from ..recipe import kind_of
from ..recipe.file import NEAR
from .candidates import FEW
from .conditions import draws
from .plans import TRIES, Candidate, changed, counted, counts_beside, first
from .table import PLAIN, WIDE, Standing, span_of

SLOWEST, FASTEST = 1.3, 20.0
PARENTS = 3  # of a span
CHILDREN = 96  # of a generation, at most


def narrow_from(steps: int) -> float:
    """Speed from which spans are narrow: below, `skip` has a count for every speed, but not of few steps.

    Args:
        steps: of the reference.
    """
    return WIDE if steps > FEW else SLOWEST


@dataclass(frozen=True, slots=True)
class Room:
    """What this pair can draw, and what it costs.

    Attributes:
        pipe: stitched.
        prices: of this machine.
        steps, seconds: of the reference.
    """

    pipe: Any
    prices: Prices
    steps: int
    seconds: float

    @property
    def masks(self) -> bool:
        """Whether parts of a picture can be drawn."""
        return draws(self.pipe, Schedule("L H@0.3"))

    @property
    def levels(self) -> bool:
        """Whether noise levels can be given."""
        try:
            own_shift(self.pipe.scheduler)
        except SchedulerError:
            return False
        return takes_levels(self.pipe)

    def speed(self, plan: Candidate) -> float:
        """Predicted, in times the reference's."""
        return self.seconds / self.cost(plan)

    @property
    def slowest(self) -> float:
        """Speed from which plans are looked for."""
        return narrow_from(self.steps)

    def first(self) -> list[Candidate]:
        """Plans to begin with, those that can be drawn here."""
        return [plan for plan in map(self.fitted, first(self.steps)) if plan is not None]

    def counts_near(self, kept: Sequence[Standing]) -> list[Candidate]:
        """Counts of large steps beside those of `first` that are still kept, those that can be drawn here."""
        plans = counts_beside([row.candidate for row in kept], self.steps)
        return [plan for plan in map(self.fitted, plans) if plan is not None]

    def counts(self) -> list[Candidate]:
        """Every count of large steps, those that can be drawn here."""
        return [plan for plan in map(self.fitted, counted(range(2, self.steps))) if plan is not None]

    def fitted(self, plan: Candidate) -> Candidate | None:
        """The plan at levels that pipeline and scheduler can be given; None where the pair cannot draw it."""
        if not self.levels:
            if plan.levels is not None:
                return None
            plan = replace(plan, shift=None)
        return plan if draws(self.pipe, plan.policy) else None

    def cost(self, plan: Candidate) -> float:
        """Seconds of a picture, predicted."""
        return self.prices.seconds(plan.policy, plan.steps)

    def span(self, plan: Candidate) -> int:
        """The span that its speed lies in."""
        return span_of(self.speed(plan), self.slowest)

    def spans_of(self, speed: float | None) -> range:
        """Spans to look at, of a speed or of all."""
        low, high = (self.slowest, FASTEST) if speed is None else (speed / (1 + NEAR), speed * (1 + NEAR))
        return range(span_of(low, self.slowest), span_of(high, self.slowest) + 1)


@dataclass(slots=True)
class Evolution:
    """What was spent on every span so far.

    Attributes:
        room: of the plans.
        spans: looked at.
        seed: of the dice.
    """

    room: Room
    spans: range
    seed: str
    _spent: dict[tuple[int, bool], float] = field(init=False)
    _made: set[Candidate] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        """Nothing was spent."""
        self._spent = {(span, plain): 0.0 for plain in (False, True) for span in self.spans}

    def children(self, rows: Sequence[Standing], number: int, *, late: bool, most: float) -> list[Candidate]:
        """The next generation.

        Args:
            rows: of everything drawn.
            number: of the generation.
            late: move single noise levels too.
            most: seconds that they may take, drawn once.
        """
        dice = random.Random(f"{self.seed}/{number}")
        parents = {key: self._parents(rows, *key) for key in self._spent}
        self._made |= {row.candidate for row in rows}
        found: list[Candidate] = []
        open_, taken = set(self._spent), 0.0
        while open_ and taken < most and len(found) < CHILDREN:
            key = min(open_, key=lambda key: (self._spent[key], -key[0], key[1]))
            child = self._child(parents[key], key, dice, late)
            if child is None:
                open_.discard(key)
                continue
            self._made.add(child)
            found.append(child)
            cost = self.room.cost(child)
            self._spent[key] += cost
            taken += cost
        return found

    def improved(self, before: Sequence[Standing], found: Sequence[Standing]) -> bool:
        """Whether any of these is closer than all before it that are as fast."""
        return any(all(r.closeness < row.closeness for r in before if r.speed >= row.speed) for row in found)

    def _parents(self, rows: Sequence[Standing], span: int, plain: bool) -> list[Candidate]:
        """The closest of a span and of its neighbours."""
        found: list[Candidate] = []
        for near in (span, span - 1, span + 1):
            inside = [r for r in rows if span_of(r.speed, self.room.slowest) == near and (r.kind in PLAIN) == plain]
            inside = [r for r in inside if r.candidate.words is not None]
            found += [r.candidate for r in sorted(inside, key=lambda r: (-r.closeness, -r.speed))[:PARENTS]]
        return found

    def _child(
        self,
        parents: Sequence[Candidate],
        key: tuple[int, bool],
        dice: random.Random,
        late: bool,
    ) -> Candidate | None:
        """Of one of the parents; None where nothing new came out."""
        span, plain = key
        for _ in range(TRIES if parents else 0):
            child = changed(dice.choice(parents), dice, plain=plain, levels=late)
            fitted = None if child is None else self.room.fitted(child)
            if fitted is None or fitted in self._made or self.room.span(fitted) != span:
                continue
            if (kind_of(fitted.policy, fitted.steps, self.room.steps) in PLAIN) == plain:
                return fitted
        return None
