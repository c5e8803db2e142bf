"""One run on one sheet: the picture emerging, who drew where, who drew when, D against its thresholds, and seconds.

The three plots share the steps as their horizontal axis; thin lines tie each frame to its step.
"""

import textwrap
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from ..policies.methods import parse
from ..policies.trace import Step
from .colours import INK, KINDS, NAMES, QUIET, RULE, kind
from .overlay import enlarged, who_drew
from .takes import Exhibit, decibels, thresholds_of

WIDTH, DPI = 12.0, 130  # inches, pixels per inch
LEFT, RIGHT = 0.95, 0.85  # inches beside the plots
GAP = 0.07  # inches between frames
HEAD, TIES, BAR, SCORES, SECONDS, FOOT = 1.15, 0.32, 0.34, 2.0, 1.25, 0.95  # inches of height of each part
BARE = 0.3  # inches above the frames without a head
APART = 12.0  # points between two labels beside a plot


def filmstrip(exhibit: Exhibit, path: str | Path, *, head: bool = True) -> None:
    """Save the sheet of one run as PNG.

    Args:
        exhibit: a take with frames.
        path: where.
        head: with the prompt, policy and figures above.
    """
    take = exhibit.take
    steps = take.trace.of(0)
    wide = WIDTH - LEFT - RIGHT  # inches
    count = max(1, len(take.frames))
    cell = min(1.6, wide / count)
    across = cell - GAP
    tall = across * take.image.height / take.image.width
    height = (HEAD if head else BARE) + 2 * (tall + GAP) + TIES + BAR + 0.18 + SCORES + 0.3 + SECONDS + FOOT
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)

    def place(left: float, top: float, width: float, high: float) -> Axes:
        """Axes by inches from the top left."""
        return figure.add_axes((left / WIDTH, 1 - (top + high) / height, width / WIDTH, high / height))

    if head:
        _head(figure, exhibit, height)
    top, span = HEAD if head else BARE, take.trace.steps
    for row in range(2):
        for index, (step, frame) in enumerate(take.frames):
            axes = place(LEFT + index * wide / count + (wide / count - across) / 2, top, across, tall)
            _frame(
                axes, enlarged(frame, 256) if row == 0 else who_drew(frame, steps[step], take.trace.grid), steps[step]
            )
            if row == 0:
                axes.set_title(f"step {step}", fontsize=8.5, color=QUIET, pad=3)
        name = ("expected\npicture", "who drew\nwhere")[row]
        figure.text(
            (LEFT - 0.15) / WIDTH, 1 - (top + tall / 2) / height, name, ha="right", va="center", fontsize=9, color=INK
        )
        top += tall + GAP
    top -= GAP
    ties = place(LEFT, top, wide, TIES)
    _ties(ties, [step for step, _ in take.frames], span)
    top += TIES
    bar, scores, seconds = (
        place(LEFT, top, wide, BAR),
        place(LEFT, top + BAR + 0.18, wide, SCORES),
        place(LEFT, top + BAR + 0.18 + SCORES + 0.3, wide, SECONDS),
    )
    for axes in (bar, scores, seconds):
        axes.set_xlim(-0.5, span - 0.5)
    _bar(bar, steps)
    _scores(scores, steps, thresholds_of(parse(take.trace.policy)))
    _seconds(seconds, steps, exhibit)
    handles = [Rectangle((0, 0), 1, 1, color=colour) for name, colour in KINDS.items() if name in _kinds(steps)]
    labels = [NAMES[name] for name in KINDS if name in _kinds(steps)]
    figure.legend(
        handles, labels, loc="lower center", bbox_to_anchor=((LEFT + wide / 2) / WIDTH, 0.06 / height), ncols=4,
        frameon=False, fontsize=9.5, handlelength=1.2, handleheight=0.9,
    )  # fmt: skip
    figure.savefig(path, format="png")


def _head(figure: Figure, exhibit: Exhibit, height: float) -> None:
    take = exhibit.take
    title = textwrap.shorten(exhibit.prompt, 90, placeholder=" …")
    facts = [f"{take.trace.steps} steps", f"seed {exhibit.seed}", f"{take.seconds:.2f} s"]
    if exhibit.large is not None:
        facts.append(f"large model alone {exhibit.large.seconds:.2f} s")
        facts.append(f"{exhibit.speedup:.2f}× as fast")
        facts.append(f"PSNR to it {decibels(exhibit.psnr)}")
    x = LEFT / WIDTH
    figure.text(x, 1 - 0.2 / height, title, fontsize=15, color=INK, weight="bold", va="top")
    figure.text(x, 1 - 0.52 / height, "   ·   ".join(facts), fontsize=9.5, color=QUIET, va="top")
    policy = textwrap.shorten(take.trace.policy.replace(",", ", "), 130, placeholder=" …")
    figure.text(x, 1 - 0.74 / height, policy, fontsize=9.5, color=QUIET, va="top")


def _frame(axes: Axes, image: object, step: Step) -> None:
    axes.imshow(np.asarray(image), aspect="auto", interpolation="lanczos")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=KINDS[kind(step.drawn)], linewidth=2.2)


def _ties(axes: Axes, steps: Sequence[int], span: int) -> None:
    """From the middle of each frame to its step."""
    axes.set(xlim=(-0.5, span - 0.5), ylim=(0, 1))
    axes.axis("off")
    for index, step in enumerate(steps):
        middle = (index + 0.5) / len(steps) * span - 0.5
        axes.add_line(Line2D([middle, middle, step, step], [1, 0.75, 0.25, 0], color=QUIET, linewidth=0.7))


def _bar(axes: Axes, steps: Sequence[Step]) -> None:
    """One cell a step, one label a stretch."""
    axes.set(ylim=(0, 1), yticks=[], xticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    for step in steps:
        axes.add_patch(
            Rectangle(
                (step.index - 0.5, 0), 1, 1, facecolor=KINDS[kind(step.drawn)], edgecolor="#ffffff60", linewidth=0.6
            )
        )
    for drawn, group in groupby(steps, key=lambda step: str(step.drawn)):
        part = list(group)
        label = f"{drawn} · {len(part)}"
        if len(part) / len(steps) > 0.011 * len(label):
            middle = (part[0].index + part[-1].index) / 2
            axes.text(middle, 0.47, label, ha="center", va="center", fontsize=9.5, color="white", weight="bold")
    axes.set_ylabel("drew", rotation=0, ha="right", va="center", fontsize=9, color=INK, labelpad=11)


def _scores(axes: Axes, steps: Sequence[Step], thresholds: Sequence[float]) -> None:
    """D of each step on a log axis, each threshold as long as its stage asked for it."""
    known = [(step.index, step.distance) for step in steps if step.distance]
    axes.set_yscale("log")
    axes.plot([x for x, _ in known], [d for _, d in known], color=INK, linewidth=1.1, zorder=3)
    for name, colour in KINDS.items():
        dots = [(s.index, s.distance) for s in steps if s.distance and kind(s.drawn) == name]
        axes.plot([x for x, _ in dots], [d for _, d in dots], "o", color=colour, markersize=4.5, zorder=4)
    stages = {stage: list(part) for stage, part in groupby(steps, key=lambda step: step.plan.stage)}
    for stage, threshold in enumerate(thresholds):
        axes.axhline(threshold, color=QUIET, linewidth=0.7, linestyle=(0, (1, 3)))
        if stage in stages:
            part = stages[stage]
            axes.plot([part[0].index - 0.5, part[-1].index + 0.5], [threshold] * 2, color=INK, linewidth=1.8)
    _plain(axes, "D (Eq. 9)")
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelbottom=False)
    _beside(axes, [(tau, f"τ{'₀₁₂₃₄₅₆₇₈₉'[stage % 10]} = {tau:g}") for stage, tau in enumerate(thresholds)])


def _seconds(axes: Axes, steps: Sequence[Step], exhibit: Exhibit) -> None:
    axes.bar(
        [step.index for step in steps], [1000 * step.seconds for step in steps], width=0.94,
        color=[KINDS[kind(step.drawn)] for step in steps], linewidth=0,
    )  # fmt: skip
    mean = 0.0
    rival = exhibit.large.trace.of(0) if exhibit.large else [s for s in steps if kind(s.drawn) == "L"]
    if rival:
        mean = 1000 * float(np.median([step.seconds for step in rival]))
        axes.axhline(mean, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set_ylim(0, 1.25 * max(mean, *(1000 * step.seconds for step in steps)))
    _plain(axes, "ms a step")
    if rival:
        _beside(axes, [(mean, f"large step\n{mean:.0f} ms")])
    axes.set_xlabel("step", fontsize=9, color=INK)


def _beside(axes: Axes, labels: Sequence[tuple[float, str]]) -> None:
    """Names of levels, at the right of a finished plot; those of near levels make room for each other."""
    points = 72 / DPI
    levels = sorted((float(axes.transData.transform((0, level))[1]) * points, level, text) for level, text in labels)
    for (at, level, text), free in zip(levels, spread([at for at, _, _ in levels], APART), strict=True):
        axes.annotate(
            text, (1, level), xycoords=("axes fraction", "data"), xytext=(12, free - at), textcoords="offset points",
            fontsize=8.5, color=INK, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": QUIET, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 0},
        )  # fmt: skip


def spread(places: Sequence[float], apart: float) -> list[float]:
    """The nearest places, by least squares, that are at least `apart` from each other.

    Args:
        places: ascending.
        apart: the least distance of two neighbours.
    """
    groups: list[list[float]] = []  # of places less i·apart, which may only rise: neighbours that fall share their mean
    for index, place in enumerate(places):
        groups.append([place - index * apart])
        while len(groups) > 1 and np.mean(groups[-2]) > np.mean(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    level = [float(np.mean(group)) for group in groups for _ in group]
    return [value + index * apart for index, value in enumerate(level)]


def _plain(axes: Axes, label: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5, colors=QUIET, which="both", color=RULE)
    axes.set_ylabel(label, fontsize=9, color=INK)
    axes.yaxis.set_label_coords(-0.047, 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))


def _kinds(steps: Sequence[Step]) -> set[str]:
    return {kind(step.drawn) for step in steps}
