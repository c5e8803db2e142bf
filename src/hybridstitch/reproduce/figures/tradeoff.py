"""Figure 6: quality against latency, over masks and thresholds, with the Pareto front.

Time is the cost model's for the strokes that were drawn. Left the distance to real pictures (in the paper FID) beyond
the large model's, paired, so that luck of the prompts falls out; right the closeness to the large model's picture. Up
is better in both. Filled marks are on the front, the broad line. A row that drew the large model's own picture for most
prompts is left out on the right: it is there no rival, but the reference.
"""

from collections.abc import Mapping
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from ...batch.crew import Crew
from ...evaluate.closeness import CEILING
from ...evaluate.scores import Scores
from ...measure.intervals import Interval
from ...report.colours import INK, QUIET, RULE
from ..equipment import Equipment
from ..results import Results
from ..scoring import named
from . import style
from .front import FRONT, Spot, plot_front

GROUPS = ("table1", "variants")
PANELS = (("kid", "distance to real pictures"), ("psnr", "closeness to the large model's picture"))
FASTER = 0.85  # of the fastest stitched row's time: fewer large steps are shown down to here
SPEEDUPS = (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 7, 10)


def draw(results: Results, crew: Crew[Equipment]) -> list[Path]:
    """Write fig6 from the scored rows."""
    names = [m.name for m in results.methods if m.group in GROUPS]
    names += [m.name for m in results.methods if m.group == "steps" and m.name.startswith("large ")]
    times = {name: results.dense(name) * results.prices.large for name in names if name in results.scores}
    return plot(times, results.scores, results.settings.figures)


def plot(seconds: Mapping[str, float], scores: Mapping[str, Mapping[str, Scores]], folder: Path) -> list[Path]:
    """A panel a score.

    Args:
        seconds: of the denoising loop, by row; "large" among them.
        scores: by row and metric.
        folder: where fig6 goes.
    """
    names = [name for name in seconds if name == "large" or seconds[name] < 0.999 * seconds["large"]]
    same = [name for name in seconds if name not in names and style.method_of(name) != "fewer-steps"]
    shown = [(score, title) for column, title in PANELS if (score := named(scores["large"], column)) is not None]
    figure = style.figure(5.6 * len(shown) + 0.4, 5.4)
    rows = []
    for axes, (large, title) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        spots = []
        for name in names:
            score = scores[name][large.metric]
            if large.each is None:  # sets: what counts is the difference on the same prompts
                spots.append(Spot(name=name, seconds=seconds[name], score=beyond(score, large), note=_note(name)))
            elif score.each is not None and np.median(score.each) < CEILING:
                spots.append(Spot(name=name, seconds=seconds[name], score=score.interval, note=_note(name)))
        best = plot_front(axes, spots, better=large.better)
        _line(axes, spots)
        _look(axes, [spot for spot in spots if _near(spot, spots)], seconds["large"])
        _times(axes, seconds["large"])
        unit = f"{large.metric} beyond the large model's" if large.each is None else f"{large.metric}, dB"
        axes.set_ylabel(f"{unit}, {large.number} prompts")
        style.title(axes, title, pad=38)
        rows += [
            {
                "metric": large.metric,
                "method": spot.name,
                "n": spot.score.number,
                "seconds": f"{spot.seconds:.5f}",
                "score": f"{scores[spot.name][large.metric].value:.6g}",
                "shown": f"{spot.score.mean:.6g}",
                "low": f"{spot.score.low:.6g}",
                "high": f"{spot.score.high:.6g}",
                "on_front": int(spot in best),
            }
            for spot in spots
        ]
    _legend(figure, names, same)
    return style.save(figure, folder, "fig6", rows)


def beyond(score: Scores, large: Scores) -> Interval:
    """How far a score lies beyond the large model's, with the interval of the paired difference."""
    ahead = score.ahead(large)
    if score.better == "higher":
        return ahead
    return Interval(-ahead.mean, -ahead.high, -ahead.low, ahead.number)


def _near(spot: Spot, spots: list[Spot]) -> bool:
    """Whether the axes reach to a spot: to fewer large steps only where something else is near."""
    fewer = style.method_of(spot.name) == "fewer-steps"
    rivals = [s.seconds for s in spots if style.method_of(s.name) != "fewer-steps"]
    return not fewer or spot.seconds >= FASTER * min(rivals, default=0.0)


def _line(axes: Axes, spots: list[Spot]) -> None:
    """The large model's step counts hang together."""
    line = sorted((s.seconds, s.score.mean) for s in spots if style.method_of(s.name) == "fewer-steps")
    axes.plot([x for x, _ in line], [y for _, y in line], color=style.colour("fewer-steps"), linewidth=0.8, zorder=2)


def _look(axes: Axes, near: list[Spot], large: float) -> None:
    """Limits around these spots, and around intervals of middling length."""
    first, last = min(s.seconds for s in near), max(large, *(s.seconds for s in near))
    axes.set_xscale("log")
    axes.set_xlim(first / 1.07, last * 1.07)
    reach = median(s.score.high - s.score.low for s in near)
    low, high = min(s.score.mean for s in near) - 0.7 * reach, max(s.score.mean for s in near) + 0.7 * reach
    axes.set_ylim(*((high, low) if axes.yaxis_inverted() else (low, high)))


def _times(axes: Axes, large: float) -> None:
    """Seconds on a log axis; above, the speedup over the large model."""
    low, high = axes.get_xlim()
    ticks = [s for s in (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50) if low <= s <= high]
    axes.set_xticks(ticks, [f"{s:g}" for s in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_tick_params(which="minor", length=0)
    axes.set_xlabel("seconds of the denoising loop")
    above = axes.secondary_xaxis("top")
    shown = [s for s in SPEEDUPS if low <= large / s <= high]
    above.set_xticks([large / s for s in shown], [f"{s:g}×" for s in shown])
    above.xaxis.set_minor_formatter(NullFormatter())
    above.tick_params(labelsize=9, colors=QUIET, color=RULE, which="major")
    above.tick_params(which="minor", length=0)
    above.spines["top"].set_color(RULE)
    above.set_xlabel("speedup", fontsize=9, color=QUIET)


def _legend(figure: Figure, names: list[str], same: list[str]) -> None:
    kinds: dict[str, str] = {}
    for name in names:
        first = " ".join(name.split(" ")[:1]) if style.method_of(name) != "fewer-steps" else name
        kinds.setdefault(style.label(first), name)
    handles = [
        Line2D([], [], linestyle="none", marker=style.marker(n), color=style.colour(n), markersize=8, label=kind)
        for kind, n in kinds.items()
    ]
    handles.append(Line2D([], [], color=FRONT, linewidth=6, label="Pareto front (filled marks)"))
    legend = figure.legend(
        handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=9, labelcolor=INK,
        title=f"not shown, since they never left the large model: {', '.join(same)}" if same else None,
        title_fontsize=8.5,
    )  # fmt: skip
    legend.get_title().set_color(QUIET)


def _note(name: str) -> str:
    """Step counts of the large model; nothing else needs words."""
    return name.split(" ")[1] if style.method_of(name) == "fewer-steps" else ""
