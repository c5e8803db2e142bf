"""What a calibration found, as a picture and as one page: closeness against speed, who is on the front, and why.

The page is one file with everything inside it; no script, font or picture is fetched from anywhere.
"""

import base64
from io import BytesIO
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..disk import files as disk
from ..recipe import Point, Recipe
from .colours import INK, METHODS, QUIET, RULE

KINDS = {  # of a point: colour, marker and name
    "large": (METHODS["large"], "D", "large model, reference"),
    "fewer steps": (METHODS["fewer-steps"], "o", "large model, fewer steps"),
    "small": (METHODS["small"], "s", "small model alone"),
    "whole steps": (METHODS["sr-diffusion"], "^", "both in turn, whole steps"),
    "region mask": (METHODS["hybrid-stitch"], "h", "small, large on a mask"),
}
SIZE, DPI = (8.6, 4.9), 150  # inches, pixels per inch


def front_picture(recipe: Recipe, path: str | Path) -> None:
    """Save the front as PNG.

    Args:
        recipe: what was found.
        path: where.
    """
    disk.keep(Path(path), _png(recipe))


def front_page(recipe: Recipe, path: str | Path, *, command: str) -> None:
    """Write the page.

    Args:
        recipe: what was found.
        path: where.
        command: what found it.
    """
    environment = Environment(
        loader=PackageLoader("hybridstitch", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    asked = ", ".join(f"{name} {value:g}" for name, value in recipe.asked.items())
    text = environment.get_template("front.html").render(
        recipe=recipe,
        asked=asked,
        served=recipe.served,
        points=[(point, KINDS[point.kind][0], KINDS[point.kind][2]) for point in recipe.points],
        deciding=_deciding(recipe),
        picture="data:image/png;base64," + base64.b64encode(_png(recipe)).decode(),
        command=command,
    )
    disk.keep(Path(path), text.encode())


def _deciding(recipe: Recipe) -> list[tuple[str, str]]:
    """The numbers that decide, as the page's head shows them."""
    prices = recipe.prices
    found = [("s", f"{prices.small_ratio:.2f}")]
    for kind, text in (("fresh", "fresh text"), ("cached", "cached text")):
        if kind in prices.masked:
            found.append((f"h(.3), {text}", f"{prices.masked_ratio(0.3, kind):.2f}"))
    if "0.3" in recipe.shares:
        found.append(("f(.3)", f"{recipe.shares['0.3']:.2f}"))
    return found


def _png(recipe: Recipe) -> bytes:
    figure = Figure(figsize=SIZE, dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _trials(axes, recipe)
    _points(axes, recipe.points)
    fastest = max([*(p.speed for p in recipe.points), *(t.speed for t in recipe.trials)], default=2.0)
    axes.set_xscale("log")
    axes.set_xlim(0.94, fastest * 1.12)
    lowest = min([*(p.closeness.mean for p in recipe.points), *(t.closeness for t in recipe.trials)])
    axes.set_ylim(max(lowest - 0.03, -0.05), 1.015)
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 1.5, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("speed, from prompt to picture, against the large model", color=INK)
    axes.set_ylabel("closeness to its picture (SSIM)", color=INK)
    axes.grid(color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=QUIET, labelsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(RULE)
    axes.legend(loc="lower left", frameon=False, fontsize=9, labelcolor=INK)
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _trials(axes: Axes, recipe: Recipe) -> None:
    """Everything that was tried, small and pale."""
    for kind, (colour, marker, _) in KINDS.items():
        tried = [trial for trial in recipe.trials if trial.kind == kind]
        speeds, close = [trial.speed for trial in tried], [trial.closeness for trial in tried]
        axes.scatter(speeds, close, s=16, c=colour, marker=marker, alpha=0.3, linewidths=0)


def _points(axes: Axes, points: tuple[Point, ...]) -> None:
    """The front, with its intervals."""
    axes.plot([p.speed for p in points], [p.closeness.mean for p in points], color=INK, linewidth=0.9, alpha=0.6)
    for kind, (colour, marker, name) in KINDS.items():
        mine = [point for point in points if point.kind == kind]
        if not mine:
            continue
        below = [p.closeness.mean - max(p.closeness.low, -1.0) for p in mine]
        above = [p.closeness.high - p.closeness.mean for p in mine]
        axes.errorbar(
            [p.speed for p in mine],
            [p.closeness.mean for p in mine],
            yerr=[below, above],
            fmt=marker,
            color=colour,
            markersize=7,
            capsize=2.5,
            elinewidth=1.0,
            label=name,
            zorder=3,
        )
