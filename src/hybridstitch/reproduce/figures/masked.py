"""Figure 7: what a masked step of the large model takes, against the mask.

Measured on this machine, in short calls that take turns, medians with the middle half: with fresh text as in the paper,
and with cached text. Beside it `M·L_l`, which Eq. 3 assumes, and the count of operations (`latency.Shape.flops`), in
seconds of the dense step. A hybrid step costs less than a dense one only below L_l − L_s (Eq. 6).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from ...batch.crew import Crew
from ...families.known import shape_of
from ...measure.start import prepare
from ...measure.timing import LARGE as LARGE_STROKE
from ...measure.timing import SMALL as SMALL_STROKE
from ...measure.timing import Stopwatch, masked
from ...policies.latency import Shape
from ...policies.plan import Region
from ...report.colours import BOTH, INK, LARGE, QUIET, RULE, SMALL
from ...report.colours import METHODS as COLOURS
from ..equipment import Equipment
from ..prices import ROUNDS, stopwatch_of
from ..results import Results
from . import style

RATIOS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)

TEXTS = {"fresh": "text computed anew", "cached": "text cached"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Seconds of strokes.

    Attributes:
        large, small: of dense steps.
        masked: by text and mask.
        shape: of the large model.
    """

    large: list[float]
    small: list[float]
    masked: Mapping[tuple[str, float], list[float]]
    shape: Shape


def draw(results: Results, crew: Crew[Equipment]) -> list[Path]:
    """Measure and write fig7."""
    pipe, settings = crew.here.pipe, results.settings
    start = prepare(pipe, steps=settings.steps, **settings.call(0))
    tokens = pipe.transformer.family.layout.count(start.latent)
    shape = shape_of(pipe.transformer.large, tokens, start.calls[0]["encoder_hidden_states"].shape[1])
    return plot(measure(stopwatch_of(pipe, settings, RATIOS), shape), settings.figures)


def measure(stopwatch: Stopwatch, shape: Shape, *, rounds: int = ROUNDS) -> Measured:
    """Time every stroke of the figure.

    Args:
        stopwatch: of strokes with the masks of the figure.
        shape: of the large model.
        rounds: of all of them.
    """
    seconds = [stopwatch.round() for _ in range(rounds)]
    return Measured(
        large=[one[LARGE_STROKE] for one in seconds],
        small=[one[SMALL_STROKE] for one in seconds],
        masked={(text, m): [one[masked(text, m)] for one in seconds] for text in TEXTS for m in RATIOS},
        shape=shape,
    )


def plot(measured: Measured, folder: Path) -> list[Path]:
    """Milliseconds of a step against M.

    Args:
        measured: seconds.
        folder: where fig7 goes.
    """
    large, small = 1e3 * median(measured.large), 1e3 * median(measured.small)
    shape = measured.shape
    figure = style.figure(7.6, 4.8)
    axes = figure.subplots()
    rows = []
    for text, colour, mark in (("fresh", BOTH, "o"), ("cached", COLOURS["schedule"], "s")):
        mine = np.array([measured.masked[text, ratio] for ratio in RATIOS]) * 1e3  # (ratios, repeats)
        low, middle, high = np.quantile(mine, (0.25, 0.5, 0.75), axis=1)
        axes.vlines(RATIOS, low, high, color=colour, linewidth=3, alpha=0.35, zorder=3)
        axes.plot(RATIOS, middle, mark, color=colour, markersize=6.5, zorder=5, label=f"masked step, {TEXTS[text]}")
        slope, base = np.polyfit(RATIOS, middle, 1)
        axes.plot([0, 1], [base, base + slope], color=colour, linewidth=1.0, alpha=0.6, zorder=4)
        least = [large * shape.flops(Region(r).count(shape.image_tokens), text=text) / shape.flops() for r in RATIOS]
        axes.plot(
            RATIOS, least, color=colour, linewidth=1.3, linestyle=(0, (1, 1.6)), zorder=2,
            label=f"its operations, {TEXTS[text]}",
        )  # fmt: skip
        rows += [
            {
                "text": text,
                "mask": ratio,
                "ms": f"{m:.4f}",
                "quarter": f"{a:.4f}",
                "three_quarters": f"{b:.4f}",
                "M_times_large_ms": f"{ratio * large:.4f}",
                "operations_ms": f"{ideal:.4f}",
                "dense_large_ms": f"{large:.4f}",
                "small_ms": f"{small:.4f}",
            }
            for ratio, a, m, b, ideal in zip(RATIOS, low, middle, high, least, strict=True)
        ]
    axes.plot([0, 1], [0, large], color=INK, linewidth=1.1, label="$M·L_l$ (Eq. 3)", zorder=1)
    for height, side, words, colour in (
        (large, "left", f"a dense step of the large model, $L_l$ = {large:.0f} ms", LARGE),
        (large - small, "left", "$L_l - L_s$: above it a hybrid step costs more than a dense one", QUIET),
        (small, "right", f"a step of the small model, $L_s$ = {small:.0f} ms", SMALL),
    ):
        axes.axhline(height, color=colour, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
        axes.annotate(
            words, (0.0 if side == "left" else 1.0, height), xytext=(4 if side == "left" else -4, 3), ha=side,
            textcoords="offset points", fontsize=8.5, color=INK, zorder=6,
        )  # fmt: skip
    axes.set(xlabel="mask ratio M", ylabel="ms a step, all guidance branches", xlim=(0, 1), ylim=(0, 1.12 * large))
    axes.set_xticks([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0])
    style.quiet(axes, grid="both")
    shares = axes.secondary_yaxis("right", functions=(style.times(1 / large), style.times(large)))
    shares.set_ylabel("in dense steps: h(M)", fontsize=10, color=INK)
    shares.tick_params(labelsize=9, colors=QUIET, color=RULE)
    shares.spines["right"].set_color(RULE)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8.5, labelcolor=INK)
    return style.save(figure, folder, "fig7", rows)
