"""Score against time, with the Pareto front drawn: used by Figure 6, and by whoever compares policies.

    spots = [Spot(name="hybridstitch-30", seconds=2.4, score=Interval(27.1, 26.0, 28.3, 96)), …]
    plot_front(axes, spots, better="higher")

A spot on the front is filled, others are hollow; the front is the staircase through the best score at each time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes

from ...measure.intervals import Interval
from ...report.colours import QUIET
from . import style

Better = Literal["higher", "lower"]
FRONT = "#dfe4ea"  # a broad pale line behind everything


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """One policy.

    Attributes:
        name: a row's name: decides colour and marker.
        seconds: of a picture.
        score: with its interval.
        note: printed beside it, if anything.
    """

    name: str
    seconds: float
    score: Interval
    note: str = ""


def front(spots: Sequence[Spot], better: Better) -> list[Spot]:
    """Those that no other beats: at least as good in no more time, and better in one of them. Fastest first.

    Args:
        spots: in any order.
        better: which scores are.
    """
    sign = 1.0 if better == "higher" else -1.0
    found: list[Spot] = []
    for spot in sorted(spots, key=lambda s: (s.seconds, -sign * s.score.mean)):
        if not found or sign * spot.score.mean > sign * found[-1].score.mean:
            found.append(spot)
    return found


def plot_front(axes: Axes, spots: Sequence[Spot], *, better: Better, size: float = 7.0) -> list[Spot]:
    """Draw spots with their intervals and the front.

    Args:
        axes: empty ones; x becomes seconds, y the score.
        spots: what to draw.
        better: which scores are; "lower" turns the axis, so that up is better in every figure.
        size: of the markers, in points.

    Returns:
        the front.
    """
    best = front(spots, better)
    names = {id(spot) for spot in best}
    for spot in spots:
        colour, on = style.colour(spot.name), id(spot) in names
        axes.plot(
            [spot.seconds] * 2, [spot.score.low, spot.score.high], color=colour, linewidth=1.1, alpha=0.55, zorder=2
        )
        axes.plot(
            [spot.seconds], [spot.score.mean], style.marker(spot.name), color=colour, zorder=5 if on else 4,
            markersize=size * (1.5 if style.marker(spot.name) == "*" else 1.0),
            markerfacecolor=colour if on else "white", markeredgewidth=1.4,
        )  # fmt: skip
        if spot.note:
            axes.annotate(
                spot.note, (spot.seconds, spot.score.mean), xytext=(6, -3), textcoords="offset points", fontsize=8,
                color=QUIET, va="top", zorder=3, annotation_clip=True,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.6, "pad": 0.5},
            )  # fmt: skip
    low, high = axes.get_ylim()
    end = max(spot.seconds for spot in spots)
    times = [spot.seconds for spot in best]
    scores = [spot.score.mean for spot in best]
    axes.step([*times, end], [*scores, scores[-1]], where="post", color=FRONT, linewidth=6, zorder=1)
    axes.set_ylim((high, low) if better == "lower" else (low, high))
    style.quiet(axes, grid="both")
    return best
