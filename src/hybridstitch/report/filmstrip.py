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
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import ConnectionPatch, Patch, Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from PIL import Image

from ..policies.parse import parse
from ..policies.trace import Step
from .colours import INK, KINDS, NAMES, QUIET, RULE, kind
from .overlay import enlarged, who_drew
from .takes import Exhibit, decibels, thresholds_of

WIDTH, DPI = 12.0, 130  # inches, pixels per inch
FRAME = 1.5  # inches, at most, of a frame's width
HEAD, TIES, BAR, SCORES, SECONDS, WORDS = 0.7, 0.3, 0.34, 1.9, 1.15, 1.5  # inches of height of each part
BESIDE = {"rotation": 0, "ha": "right", "va": "center", "fontsize": 9, "color": INK}  # words at the left of a part
APART = 12 / (72 * SCORES)  # of a plot's height, between two labels beside it


def filmstrip(exhibit: Exhibit, path: str | Path, *, head: bool = True) -> None:
    """Save the sheet of one run as PNG.

    Args:
        exhibit: a take with frames.
        path: where.
        head: with the prompt, policy and figures above.
    """
    take = exhibit.take
    steps, count = take.trace.of(0), max(1, len(take.frames))
    tall = min(FRAME, 0.83 * WIDTH / count) * take.image.height / take.image.width * len(take.shown)
    heights = [HEAD * head, tall, tall, TIES, BAR, SCORES, SECONDS]
    layout = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04, wspace=0, hspace=0, rect=(0.01, 0.01, 0.98, 0.98))
    figure = Figure((WIDTH, sum(heights) + WORDS), dpi=DPI, facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(heights), count, height_ratios=[max(height, 0.01) for height in heights])
    if head:
        _head(figure.add_subplot(grid[0, :]), exhibit)
    bar = figure.add_subplot(grid[4, :])
    scores = figure.add_subplot(grid[5, :], sharex=bar)
    seconds = figure.add_subplot(grid[6, :], sharex=bar)
    for place, (step, frame) in enumerate(take.frames):
        above, below = (figure.add_subplot(grid[row, place]) for row in (1, 2))
        _frame(above, enlarged(frame, 256), steps[step], len(take.shown))
        _frame(below, who_drew(frame, steps[step], take.trace.grid, take.shown), steps[step], len(take.shown))
        above.set_title(f"step {step}", fontsize=8.5, color=QUIET, pad=3)
        if place == 0:
            above.set_ylabel("expected\nframes" if take.clip else "expected\npicture", **BESIDE)
            below.set_ylabel("who drew\nwhere", **BESIDE)
        figure.add_artist(
            ConnectionPatch(
                (0.5, -0.02), (step, 1), below.transAxes, bar.transData, color=QUIET, linewidth=0.7,
                connectionstyle="arc,angleA=-90,angleB=90,armA=6,armB=6",
            )
        )  # fmt: skip
    bar.set_xlim(-0.5, take.trace.steps - 0.5)
    _bar(bar, steps)
    _scores(scores, steps, thresholds_of(parse(take.trace.policy)))
    _seconds(seconds, steps, exhibit)
    figure.align_ylabels([scores, seconds])
    drew = {kind(step.drawn) for step in steps}
    handles = [Patch(color=colour, label=NAMES[name]) for name, colour in KINDS.items() if name in drew]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9.5, handlelength=1.2,
        handleheight=0.9,
    )  # fmt: skip
    figure.savefig(path, format="png")


def _head(axes: Axes, exhibit: Exhibit) -> None:
    take = exhibit.take
    facts = [f"{take.trace.steps} steps", f"seed {exhibit.seed}", f"{take.seconds:.2f} s"]
    if exhibit.large is not None:
        facts.append(f"{exhibit.beside} {exhibit.large.seconds:.2f} s")
        facts.append(f"{exhibit.speedup:.2f}× as fast")
        facts.append(f"PSNR to it {decibels(exhibit.psnr)}")
    title = textwrap.shorten(exhibit.prompt, 90, placeholder=" …")
    policy = textwrap.shorten(take.trace.policy.replace(",", ", "), 130, placeholder=" …")
    axes.axis("off")
    for height, text, size, colour, weight in (
        (0.95, title, 15, INK, "bold"),
        (0.45, "   ·   ".join(facts), 9.5, QUIET, "normal"),
        (0.12, policy, 9.5, QUIET, "normal"),
    ):
        axes.text(0, height, text, fontsize=size, color=colour, weight=weight, va="top", in_layout=False)


def _frame(axes: Axes, image: Image.Image, step: Step, parts: int) -> None:
    axes.imshow(np.asarray(image), interpolation="lanczos")
    for part in range(1, parts):  # frames of a video, one below the other
        axes.axhline(part * image.height / parts - 0.5, color="white", linewidth=2.5)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=KINDS[kind(step.drawn)], linewidth=2.2)


def _bar(axes: Axes, steps: Sequence[Step]) -> None:
    """One cell a step, one label a stretch."""
    axes.set(ylim=(0, 1), yticks=[])
    axes.tick_params(bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
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
    axes.set_ylabel("drew", **BESIDE)


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
    share = axes.transScale + axes.transLimits  # of the plot's height
    levels = sorted((float(share.transform((1, level))[1]), text) for level, text in labels)
    for (at, text), free in zip(levels, spread([at for at, _ in levels], APART), strict=True):
        axes.annotate(
            text, (1, at), xycoords="axes fraction", xytext=(1.013, free), fontsize=8.5, color=INK, va="center",
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
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
