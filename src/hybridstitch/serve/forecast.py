"""Seconds of an order before it is drawn: by prices, corrected by the orders drawn before.

    predicted = prices(policy, T) · pixels / pixels priced · correction

The prices are the recipe's where there is one, scaled to this machine by a large step timed here, else those taken as
the worker warmed up. A correction is the median of drawn over priced seconds, of the last orders of the same kind, or
of all kinds where there were none. A policy that decides as it draws is priced by the recipe's point of it, else as if
the large model drew every step: an upper bound, until pictures of its kind are drawn.
"""

from bisect import bisect_left
from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from statistics import median
from typing import Any

from ..errors import PolicyError
from ..measure.price import Prices
from ..policies.methods import LargeOnly
from ..policies.parse import parse
from ..recipe import Recipe
from .orders import Order

LAST = 16  # orders of a kind that a correction rests on
KINDS = 512  # that are remembered
SKETCH_STEPS = 8  # of the small model's sketch


@dataclass(frozen=True, slots=True)
class Priced:
    """Prices, and the pixels they are for."""

    prices: Prices
    pixels: int


class Forecast:
    """Predicts, and learns."""

    def __init__(self, timed: Priced, recipe: Recipe | None) -> None:
        """Begin with what is known.

        Args:
            timed: as the worker warmed up.
            recipe: of the pair.
        """
        self._timed, self._recipe = timed, recipe
        self._kinds: OrderedDict[Any, deque[float]] = OrderedDict()
        self._all: deque[float] = deque(maxlen=LAST)
        self._by_price = lru_cache(KINDS)(self._plain)  # a queue asks for the same few again and again

    @cached_property
    def _found(self) -> tuple[Prices, int, float]:
        """The prices to use, their pixels, and what they are to be multiplied by here."""
        if self._recipe is None:
            return self._timed.prices, self._timed.pixels, 1.0
        home, theirs = self._recipe.home, self._recipe.prices
        pixels = home.width * home.height
        return theirs, pixels, self._timed.prices.large / self._timed.pixels * pixels / theirs.large

    def seconds(self, order: Order) -> float:
        """From the prompt to the last picture."""
        known = self._kinds.get(_kind(order))
        return self._priced(order) * (median(known or self._all) if known or self._all else 1.0)

    def learn(self, order: Order, seconds: float) -> None:
        """An order was drawn, by itself, in so many seconds."""
        ratio = seconds / self._priced(order)
        self._kinds.setdefault(_kind(order), deque(maxlen=LAST)).append(ratio)
        self._kinds.move_to_end(_kind(order))
        if len(self._kinds) > KINDS:
            self._kinds.popitem(last=False)
        self._all.append(ratio)

    def spared(self, order: Order) -> Order:
        """The order, told from which step on drawing on from a picture drawn before is quicker than drawing it.

        Args:
            order: with how its rest would be drawn, or without.
        """
        rest = order.rest
        if rest is None:
            return order
        alone = replace(order, partials=0)
        whole = self._priced(alone)

        def is_quicker(start: int) -> bool:
            return self._priced(replace(alone, policy=rest.policy, steps=rest.steps - start)) < whole

        least = bisect_left(range(rest.steps), True, lo=1, key=is_quicker)
        return replace(order, rest=replace(rest, least=least))

    def _priced(self, order: Order) -> float:
        prices, pixels, factor = self._found
        seconds = self._by_price(order.policy, order.steps)
        if order.partials:
            seconds += SKETCH_STEPS * (prices.small + prices.step) + prices.call
        width, height = order.size
        return order.count * seconds * factor * width * height / pixels

    def _plain(self, policy: str, steps: int) -> float:
        """Of one picture where the prices were taken."""
        prices, recipe = self._found[0], self._recipe
        try:
            return prices.seconds(parse(policy), steps)
        except PolicyError:
            point = recipe and next((p for p in recipe.points if (p.policy, p.steps) == (policy, steps)), None)
            if recipe is not None and point is not None:
                return prices.seconds(LargeOnly(), recipe.home.steps) / point.speed
            return prices.seconds(LargeOnly(), steps)


def _kind(order: Order) -> Any:
    return order.policy, order.steps, order.size, order.guidance > 1, order.partials > 0, order.edit is not None
