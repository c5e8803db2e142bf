"""What strokes cost on this machine, and what a method's denoising loop should therefore take.

Strokes and steps are timed in short calls of their own (`measure.timing`). No run of a method enters: its time is a
prediction, and the tables tell how far off it was. Only the loop is priced here, so a call costs nothing beside it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..measure.calls import call
from ..measure.price import Prices
from ..measure.timing import UNGUIDED, Stopwatch
from ..policies.plan import Plan
from .settings import Settings

RATIOS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
ROUNDS = 15


def dense(prices: Prices, plans: Iterable[Plan]) -> float:
    """Time of the denoising loop of one image, in dense steps of the large model."""
    return prices.plans(plans) / prices.large


def stopwatch_of(pipe: Any, settings: Settings, ratios: Sequence[float] = RATIOS) -> Stopwatch:
    """What times strokes by drawing the first prompt.

    Args:
        pipe: the stitched pipeline.
        settings: size and guidance.
        ratios: masks to time.
    """
    return Stopwatch(lambda policy, steps: call(pipe, policy=policy, steps=steps, **settings.call(0)), UNGUIDED, ratios)


def loop_prices(stopwatch: Stopwatch) -> Prices:
    """Of the rounds so far; a loop pays nothing for its call."""
    return replace(stopwatch.prices(), call=0.0)


def measure(pipe: Any, settings: Settings, *, rounds: int = ROUNDS) -> Prices:
    """Prices of this machine now.

    Args:
        pipe: the stitched pipeline.
        settings: size and guidance.
        rounds: of everything.
    """
    stopwatch = stopwatch_of(pipe, settings)
    for _ in range(rounds):
        stopwatch.round()
    return loop_prices(stopwatch)
