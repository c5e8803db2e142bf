"""Figure 2: how the difference between the two models is spread, at steps 10, 30 and 50.

Left, as in the paper: the distribution of |v_L − v_S| over the numbers of the latent. Right, why a mask can pay: the
share of ‖v_L − v_S‖² that the tokens of largest difference hold. Lines are means over prompts, bands all prompts.
"""

from pathlib import Path

import numpy as np

from ...batch.crew import Crew
from ...report.colours import INK, QUIET, RULE
from ..equipment import Equipment
from ..results import Results
from . import style
from .differences import Difference, measured

BINS = 40
TONES = ("#9fb0bf", "#5a6b7a", "#11161b")  # the three steps, light to dark
NOTHING = 0.05  # of the prediction's size: "almost no difference"


def draw(results: Results, crew: Crew[Equipment]) -> list[Path]:
    """Measure what is not there yet, and write fig2."""
    return plot(measured(crew), results.settings.figures)


def plot(differences: list[Difference], folder: Path) -> list[Path]:
    """Both panels.

    Args:
        differences: of all prompts.
        folder: where fig2 goes.
    """
    steps = differences[0].steps
    end = max(float(np.quantile([d.values[k] for d in differences], 0.99)) for k in range(len(steps)))
    edges = np.linspace(0, end, BINS + 1)
    figure = style.figure(10, 3.9)
    left, right = figure.subplots(1, 2)
    rows = []
    for k, (step, tone) in enumerate(zip(steps, TONES, strict=True)):
        shares = np.stack([np.histogram(d.values[k], edges)[0] / d.values[k].size for d in differences])  # (P, bins)
        mean, low, high = shares.mean(0), shares.min(0), shares.max(0)
        small = float(np.mean([(d.values[k] < NOTHING * d.size[k]).mean() for d in differences]))
        name = f"step {step}, {style.percent(small)} almost none"
        left.stairs(100 * mean, edges, color=tone, linewidth=1.8, label=name, zorder=3 + k)
        left.stairs(100 * high, edges, baseline=100 * low, fill=True, color=tone, alpha=0.18, zorder=2)
        held = np.stack([_held(d.tokens[step - 1]) for d in differences])  # (P, 101)
        x = np.linspace(0, 100, 101)
        right.plot(x, 100 * held.mean(0), color=tone, linewidth=1.8, label=f"step {step}", zorder=3 + k)
        right.fill_between(x, 100 * held.min(0), 100 * held.max(0), color=tone, alpha=0.18, linewidth=0, zorder=2)
        rows += [
            {
                "panel": "distribution",
                "step": int(step),
                "from": f"{edges[b]:.5f}",
                "to": f"{edges[b + 1]:.5f}",
                "mean": f"{mean[b]:.6f}",
                "least": f"{low[b]:.6f}",
                "most": f"{high[b]:.6f}",
            }
            for b in range(BINS)
        ]
        rows += [
            {
                "panel": "held by the largest",
                "step": int(step),
                "from": "0",
                "to": f"{share:.2f}",
                "mean": f"{held[:, share_index].mean():.6f}",
                "least": f"{held[:, share_index].min():.6f}",
                "most": f"{held[:, share_index].max():.6f}",
            }
            for share_index, share in enumerate(x / 100)
        ]
    right.plot([0, 100], [0, 100], color=RULE, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    right.annotate("spread evenly", (66, 60), fontsize=8.5, color=QUIET, rotation=32, ha="center", va="center")
    left.set(xlabel="$|v_L - v_S|$", ylabel="% of the latent's values", xlim=(0, end), ylim=(0, None))
    right.set(
        xlabel="% of the tokens, largest difference first",
        ylabel="% of $‖v_L - v_S‖^2$",
        xlim=(0, 100),
        ylim=(0, 100.5),
    )
    style.title(left, "How much the models differ")
    style.title(right, "How much of it few tokens hold")
    for axes in (left, right):
        style.quiet(axes, grid="both")
        axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper right" if axes is left else "lower right")
    nothing = f"almost none: below {style.percent(NOTHING)} of the size of $v_L$"
    figure.supxlabel(f"{len(differences)} prompts, bands: all of them; {nothing}", fontsize=8.5, color=QUIET)
    return style.save(figure, folder, "fig2", rows)


def _held(tokens: np.ndarray) -> np.ndarray:
    """Share of the sum held by the largest 0, 1, … 100 % of the tokens, (101,)."""
    ordered = np.sort(tokens.ravel())[::-1]
    held = np.concatenate([[0.0], np.cumsum(ordered) / ordered.sum()])
    return np.interp(np.linspace(0, ordered.size, 101), np.arange(ordered.size + 1), held)
