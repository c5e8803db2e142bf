"""The verdict as a table and a plot."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

STYLES = {"stitched": ("o-", "#1f77b4"), "large": ("s--", "#d62728"), "large, stock": ("s:", "#888888")}


def markdown(report: dict[str, Any]) -> str:
    """Plans a budget, then what becomes of them without their small model or their masks."""
    out = [
        "| budget | plan | shift | dense steps | PSNR, dB | ahead of fewer steps, dB | by the clock, dB "
        "| ahead at stock levels, dB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    out += [
        f"| {r['budget']} | `{r['plan']}` | {r['shift']:g} | {r['dense_steps']:.2f} | {r['psnr']} | {r['ahead']} "
        f"| {r['ahead_by_the_clock']} | {r['ahead_of_stock']} |"
        for r in report["table"]
    ]
    names = list(report["table"][0]["scores"])
    out += ["", "| plan | against | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    for r in report["table"]:
        cells = [f"{r['scores'][n]}, ahead {r['ahead_of_rival'][n]}" for n in names]
        out.append(
            f"| `{r['plan']}` ({r['dense_steps']:.2f}) | {r['rival']} ({r['rival_dense_steps']:.2f}) | "
            + " | ".join(cells)
            + " |"
        )
    out += ["", "| changed | plan | dense steps | PSNR, dB | against the plan itself, dB |", "|---|---|---|---|---|"]
    out += [
        f"| {r['what']} | `{r['method']}` | {r['dense_steps']:.2f} | {r['psnr']} | {r['minus']} |"
        for r in report["ablations"]
    ]
    return "\n".join(out) + "\n"


def plot(report: dict[str, Any], file: Path) -> None:
    """PSNR over time, the plans before both rivals."""
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for name, points in report["curves"].items():
        style, colour = STYLES[name]
        points = sorted(points)
        axes.plot([p[0] for p in points], [p[2] for p in points], style, color=colour, label=name)
    axes.set(
        xlabel="time, dense steps of the large model",
        ylabel="PSNR to the large model's 50 steps, dB",
        xlim=(1.8, 9.2),
    )
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=150)
    plt.close(figure)
