"""Which methods lie on the front of time and score, at which number of steps, and how sure that is.

Time is the cost model's, in dense steps of the large model. A method is on the front if none is better at no more time;
over the bootstrap's replicates, which resample the same prompts for all methods, that is a share of luck.

Fewer steps of the large model are drawn at some step counts only. Between two of them its score is taken as linear in
the logarithm of time, which PSNR nearly is: its error falls with a power of the number of steps. They compete there,
too: else a method between two step counts would be on the front for want of a rival.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log

import numpy as np

from ..measure.intervals import Interval, Values, replicated


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contender:
    """A method at one number of steps.

    Attributes:
        time: in dense steps of the large model.
        value: its score; larger is better.
        replicates: of resampled prompts, (R,), the same ones for every point.
    """

    time: float
    value: float
    replicates: Values


def chances(points: Mapping[str, Contender], line: Sequence[Contender] = ()) -> dict[str, float]:
    """The share of replicates in which each point is on the front.

    Args:
        points: by name.
        line: one method that could be drawn at any time between its points: it competes at every point's own time.
    """
    times = np.array([p.time for p in points.values()])
    scores = np.stack([p.replicates for p in points.values()])  # (P, R)
    found = {}
    for place, name in enumerate(points):
        sooner = times < times[place]
        same = (times == times[place]) & (np.arange(len(times)) != place)
        beaten = (scores[sooner] >= scores[place]).any(0) | (scores[same] > scores[place]).any(0)
        between = None if any(p is points[name] for p in line) else at_time(line, points[name].time)
        if between is not None:
            beaten |= between.replicates >= scores[place]
        found[name] = float(1 - beaten.mean())
    return found


def at_time(line: Sequence[Contender], time: float) -> Contender | None:
    """A point between the two nearest of a line, linear in log time; None outside of it.

    Args:
        line: one method at several numbers of steps.
        time: wanted.
    """
    ordered = sorted(line, key=lambda p: p.time)
    for a, b in pairwise(ordered):
        if a.time <= time <= b.time:
            share = (log(time) - log(a.time)) / (log(b.time) - log(a.time))
            return Contender(
                time=time,
                value=a.value + share * (b.value - a.value),
                replicates=a.replicates + share * (b.replicates - a.replicates),
            )
    return None


def ahead(point: Contender, other: Contender, number: int) -> Interval:
    """By how much a point's score is better, with its 95 % interval.

    Args:
        point, other: of the same prompts.
        number: N.
    """
    return replicated(point.value - other.value, point.replicates - other.replicates, number)
