"""What strokes, steps and pictures cost on this machine: short real calls that take turns, a round at a time.

A round draws one picture with each model whole, and one for each kind of masked stroke: large steps, then a hybrid step
for every mask. Seconds of strokes are those of their traces; what is left of the denoising loop is the price of its
steps, what is left of the call that of the picture. Real calls go through everything that the user's do: compiled
models, offloading, hooks.
"""

from collections.abc import Callable, Iterable, Sequence
from statistics import mean

from ..policies.methods import Schedule
from ..policies.plan import Region, Stroke
from ..policies.policy import Policy
from .calls import TracedCall
from .price import Prices

LARGE, SMALL = Stroke("L"), Stroke("S")
WHOLE = Schedule("L4 S6")  # the first step of each model warms it up
RATIOS = (0.1, 0.15, 0.2, 0.3, 0.4)
GUIDED = ("fresh", "cached", "cond")  # kinds of masked strokes with guidance
UNGUIDED = ("fresh", "cached")
Draw = Callable[[Policy, int], TracedCall]


class Stopwatch:
    """Times strokes of a pair, a round at a time; in between the pipeline can be used, and stitched anew.

    Attributes:
        strokes: what is timed.
    """

    def __init__(self, draw: Draw, kinds: Iterable[str], ratios: Sequence[float] = RATIOS) -> None:
        """Draw a round that does not count.

        Args:
            draw: a picture by a policy in so many steps.
            kinds: of masked strokes, see `Prices.masked`.
            ratios: masks to time.
        """
        self._draw = draw
        self._runs = {kind: [masked(kind, ratio) for ratio in ratios] for kind in kinds}
        self.strokes = (LARGE, SMALL, *(stroke for run in self._runs.values() for stroke in run))
        self._rounds: list[tuple[dict[Stroke, float], float, float]] = []  # strokes, step, call
        self.round()
        self._rounds.clear()

    def round(self) -> dict[Stroke, float]:
        """Time everything once; seconds of every stroke."""
        whole = self._draw(WHOLE, 10)
        calls, records = [whole], whole.trace.records
        large, small = (mean(step.seconds for step in part) for part in (records[1:4], records[5:10]))
        seconds = {LARGE: large, SMALL: small}
        for run in self._runs.values():
            calls.append(self._draw(hybrid(run), 2 + len(run)))
            records = calls[-1].trace.records[2:]
            seconds |= {s: max(step.seconds - small, 0.0) for s, step in zip(run, records, strict=True)}
        step = (whole.denoising_seconds - whole.trace.seconds) / whole.trace.steps
        call = mean(taken.total_seconds - taken.denoising_seconds for taken in calls)
        self._rounds.append((seconds, step, call))
        return seconds

    def prices(self) -> Prices:
        """Of the rounds so far: means, because the time of a call is a sum; without what strays."""
        strokes, steps, calls = zip(*self._rounds, strict=True)
        return Prices.fit(
            [(stroke, trimmed(seconds[stroke] for seconds in strokes)) for stroke in self.strokes],
            call=trimmed(calls),
            step=trimmed(steps),
        )


def measure(
    draw: Draw, kinds: Iterable[str], *, rounds: int, on_round: Callable[[int], None] = lambda count: None
) -> Prices:
    """Prices of a pair on this machine.

    Args:
        draw, kinds: see `Stopwatch`.
        rounds: that count.
        on_round: called after each round with their number; 0 is the one that warms up.
    """
    stopwatch = Stopwatch(draw, kinds)
    on_round(0)
    for count in range(1, rounds + 1):
        stopwatch.round()
        on_round(count)
    return stopwatch.prices()


def masked(kind: str, ratio: float) -> Stroke:
    """A masked stroke of a kind."""
    if kind == "cond":
        return Stroke("L", Region(ratio), branches="cond")
    return Stroke("L", Region(ratio), text="cached" if kind == "cached" else "fresh")


def hybrid(strokes: Sequence[Stroke]) -> Schedule:
    """Two large steps, then a hybrid one for each masked stroke of one kind."""
    words = " ".join(f"H@{stroke.region.ratio:g}" for stroke in strokes)
    return Schedule(f"L2 {words}", text=strokes[0].text, branches=strokes[0].branches)


def trimmed(values: Iterable[float]) -> float:
    """Mean without the smallest and the largest tenth, of three values or more at least one each."""
    ordered = sorted(values)
    cut = max(len(ordered) // 10, int(len(ordered) > 2))
    return mean(ordered[cut : len(ordered) - cut])
