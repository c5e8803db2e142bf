"""Figure 6: quality against latency, over masks and thresholds, with the Pareto front.

Time is the cost model's for the strokes that were drawn. Left the distance to real pictures (the paper shows FID),
right the closeness to the large model's picture; up is better in both. Filled marks are on the front.
"""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes

from ...evaluate.scores import Scores
from ...report.colours import INK, QUIET, RULE
from ..crew import Crew
from ..results import Results
from ..scoring import named
from . import style
from .front import Spot, plot_front

GROUPS = ("table1", "variants")
PANELS = (("kid", "distance to real pictures"), ("psnr", "closeness to the large model's picture"))


def draw(results: Results, crew: Crew) -> list[Path]:
    """Write fig6 from the scored rows."""
    names = [m.name for m in results.methods if m.group in GROUPS]
    names += [m.name for m in results.methods if m.group == "steps" and m.name.startswith("large ")]
    times = {name: results.dense(name) * results.prices.large for name in names if name in results.scores}
    return plot(times, results.scores, results.settings.figures)


def plot(seconds: Mapping[str, float], scores: Mapping[str, Mapping[str, Scores]], folder: Path) -> list[Path]:
    """A panel a score.

    Args:
        seconds: of the denoising loop, by row.
        scores: by row and metric.
        folder: where fig6 goes.
    """
    names = [name for name in seconds if name != _last_sweep(seconds)]
    metrics = [(named(scores[names[0]], column), title) for column, title in PANELS]
    shown = [(score.metric, title) for score, title in metrics if score is not None]
    figure = style.figure(5.4 * len(shown) + 0.4, 5.2)
    rows = []
    for axes, (metric, title) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        spots = [
            Spot(name=name, seconds=seconds[name], score=scores[name][metric].interval, note=_note(name))
            for name in names
            if metric in scores[name] and not (metric == "PSNR" and name == "large")
        ]
        one = scores[names[-1]][metric]
        _line(axes, spots)
        best = plot_front(axes, spots, better=one.better)
        _speedups(axes, seconds["large"])
        axes.set(
            xlabel="seconds of the denoising loop",
            ylabel=f"{metric}, {one.number} prompts" + (", dB" if metric == "PSNR" else ""),
        )
        style.title(axes, title, pad=34)
        rows += [
            {
                "metric": metric,
                "method": spot.name,
                "n": spot.score.number,
                "seconds": f"{spot.seconds:.5f}",
                "score": f"{spot.score.mean:.6g}",
                "low": f"{spot.score.low:.6g}",
                "high": f"{spot.score.high:.6g}",
                "on_front": int(spot in best),
            }
            for spot in spots
        ]
    _legend(figure, names)
    return style.save(figure, folder, "fig6", rows)


def _line(axes: Axes, spots: list[Spot]) -> None:
    """The large model's step counts hang together."""
    line = sorted((s.seconds, s.score.mean) for s in spots if style.method_of(s.name) == "fewer-steps")
    axes.plot([x for x, _ in line], [y for _, y in line], color=style.colour("fewer-steps"), linewidth=0.9, zorder=1)


def _speedups(axes: Axes, large: float) -> None:
    """A second axis above: the speedup over the large model."""
    above = axes.secondary_xaxis("top", functions=(style.times(1 / large), style.times(large)))
    ticks = [1, 1.5, 2, 3, 5, 10]
    above.set_xticks([1 / t for t in ticks], [f"{t:g}×" for t in ticks])
    above.tick_params(labelsize=9, colors=QUIET, color=RULE)
    above.spines["top"].set_color(RULE)
    above.set_xlabel("speedup", fontsize=9, color=QUIET)


def _legend(figure: object, names: list[str]) -> None:
    from matplotlib.lines import Line2D

    kinds: dict[str, str] = {}
    for name in names:
        kinds.setdefault(style.label(name) if not name.startswith("hybridstitch") else _masks(name), name)
    handles = [
        Line2D([], [], linestyle="none", marker=style.marker(n), color=style.colour(n), markersize=8, label=kind)
        for kind, n in kinds.items()
    ]
    handles.append(Line2D([], [], color=INK, alpha=0.5, linewidth=1.0, label="Pareto front (filled)"))
    figure.legend(  # type: ignore[attr-defined]
        handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=9, labelcolor=INK
    )


def _masks(name: str) -> str:
    return f"HybridStitch {name.split('-')[1].split(' ')[0]} %"


def _note(name: str) -> str:
    """Step counts of the large model; nothing else needs words."""
    return name.split(" ")[1] if style.method_of(name) == "fewer-steps" else ""


def _last_sweep(seconds: Mapping[str, float]) -> str | None:
    """ "large 50 steps" is the large model itself."""
    twins = [n for n in seconds if style.method_of(n) == "fewer-steps" and abs(seconds[n] - seconds["large"]) < 1e-9]
    return twins[0] if twins else None
