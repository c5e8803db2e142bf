"""Figure 8: at which steps the models change hands, over prompts.

A row a method: how many prompts made each switch at each step, the first switch above the lane and the second below it;
the lane is coloured by who draws at the median prompt.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from ...batch.crew import Crew
from ...report.colours import BOTH, INK, LARGE, SMALL
from ..equipment import Equipment
from ..results import Results, middle
from . import style

METHODS = ("sr-diffusion", "hybridstitch-10", "hybridstitch-20", "hybridstitch-30", "hybridstitch-40")


def draw(results: Results, crew: Crew[Equipment]) -> list[Path]:
    """Write fig8 from the rows of the folder."""
    switches = {name: results.switches(name) for name in METHODS if results.of(name)}
    return plot(switches, results.settings.steps, results.settings.figures)


def plot(switches: Mapping[str, Sequence[tuple[int, ...]]], steps: int, folder: Path) -> list[Path]:
    """A lane a method.

    Args:
        switches: per method and prompt, the steps at which stages began.
        steps: T.
        folder: where fig8 goes.
    """
    figure = style.figure(9.2, 1.1 + 0.98 * len(switches))
    lanes = figure.subplots(len(switches), 1, sharex=True, squeeze=False)[:, 0]
    rows = []
    for axes, (name, found) in zip(lanes, switches.items(), strict=True):
        stages = 1 if name == "sr-diffusion" else 2
        _lane(axes, found, stages, steps)
        axes.set_ylabel(style.label(name), rotation=0, ha="right", va="center", fontsize=10, color=INK, labelpad=8)
        rows += [
            {"method": name, "image": image, "switch": k + 1, "step": mine[k] if k < len(mine) else ""}
            for image, mine in enumerate(found)
            for k in range(stages)
        ]
    lanes[-1].set_xlabel("step at which the next stage begins")
    lanes[-1].spines["bottom"].set_visible(True)
    lanes[-1].tick_params(bottom=True, labelbottom=True)
    number = len(next(iter(switches.values())))
    style.title(lanes[0], f"Switch steps of {number} prompts")
    handles = [
        Patch(color=LARGE, label="large alone"),
        Patch(color=BOTH, label="both"),
        Patch(color=SMALL, label="small alone"),
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9, labelcolor=INK,
        title="lane: who draws at the median prompt; bars: first switch above, second below; median (quartiles)",
        title_fontsize=8.5,
    )  # fmt: skip
    return style.save(figure, folder, "fig8", rows)


def _lane(axes: Axes, found: Sequence[tuple[int, ...]], stages: int, steps: int) -> None:
    """The counts of each switch, and the median prompt's stages."""
    half = 0.17  # of the lane
    bounds, colours = [0.0], (LARGE, SMALL) if stages == 1 else (LARGE, BOTH, SMALL)
    for k in range(stages):
        made = [mine[k] for mine in found if k < len(mine)]
        never = len(found) - len(made)
        bounds.append(median([*made, *[steps] * never]))
        counts = np.bincount(made, minlength=steps + 1) if made else np.zeros(steps + 1, dtype=int)
        heights = counts / max(counts.max(), 1) * (1 - half - 0.12)
        up = 1 if k == 0 else -1
        for step in np.flatnonzero(counts):
            axes.add_patch(
                Rectangle(
                    (step - 0.45, half * up), 0.9, heights[step] * up, color=colours[k + 1], alpha=0.75, linewidth=0
                )
            )
        axes.annotate(
            ("" if stages == 1 else ("first ", "second ")[k]) + _words(made, never), (1.0, 0.72 if k == 0 else 0.28),
            xycoords="axes fraction", xytext=(8, 0), textcoords="offset points", fontsize=8.5, color=INK, va="center",
        )  # fmt: skip
    bounds.append(float(steps))
    for left, right, colour in zip(bounds, bounds[1:], colours, strict=False):
        axes.add_patch(Rectangle((left, -half), right - left, 2 * half, facecolor=colour, linewidth=0, zorder=4))
    axes.set(xlim=(0, steps), ylim=(-1.02 if stages > 1 else -0.35, 1.02), yticks=[])
    style.quiet(axes, grid="x")
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(bottom=False, labelbottom=False)


def _words(made: Sequence[int], never: int) -> str:
    """The median switch with quartiles, and how many prompts never made it."""
    if not made:
        return f"never ({never} prompts)"
    return middle(made) + (f", {never} never" if never else "")
