"""First science on a pair: how the picture settles, where the two models differ, and what a mask is worth.

    python -m benchmarks.science --prompts 16

follows the large model on held-out prompts, asks the small one at every step, and writes `docs/results/science/`:
raw.json (every number per prompt and step), costs.json, and the plots `distances`, `difference`, `where`, `worth`.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np
import torch

mpl.use("Agg")
import matplotlib.pyplot as plt

import hybridstitch
from benchmarks.machine import machine
from hybridstitch.calibrate.conditions import native_size
from hybridstitch.measure.calls import call
from hybridstitch.measure.price import Prices
from hybridstitch.measure.profile import Trajectory, follow
from hybridstitch.measure.timing import RATIOS, UNGUIDED, Stopwatch
from hybridstitch.mini.scenes import heldout_prompts
from hybridstitch.policies.latency import break_even
from hybridstitch.policies.policy import Reduction, Signal

SIGNALS: tuple[Signal, ...] = ("denoised", "latent")
REDUCTIONS: tuple[Reduction, ...] = ("token", "norm", "elementwise")
KINDS = ("oracle", "denoised", "latent", "frozen@10", "random")
GUIDANCE = 4.0


def measured(trajectory: Trajectory) -> dict[str, Any]:
    """All numbers of one trajectory, as lists over the steps."""
    return {
        "distance": {f"{s} {r}": trajectory.distances(s, r) for s in SIGNALS for r in REDUCTIONS},
        "difference": trajectory.relative_difference.tolist(),
        "f": {f"{kind} {ratio}": trajectory.shares(ratio, kind) for kind in KINDS for ratio in RATIOS},
    }


def middle(rows: list[dict[str, Any]], *path: str) -> np.ndarray:
    """Median over prompts of one quantity, (T,)."""

    def pick(row: Any) -> Any:
        for key in path:
            row = row[key]
        return row

    with np.errstate(all="ignore"):
        return np.nanmedian(np.array([pick(row) for row in rows]), axis=0) if rows else np.array([])


def timed(pipe: Any, prompt: str) -> Prices:
    """Seconds of strokes at batch 1 with guidance, text fresh and cached."""
    height, width = native_size(pipe)
    setting = {"guidance": GUIDANCE, "seed": 0, "width": width, "height": height}
    stopwatch = Stopwatch(lambda policy, steps: call(pipe, prompt, policy, steps=steps, **setting), UNGUIDED)
    for _ in range(15):
        stopwatch.round()
    return stopwatch.prices()


def plot_distances(rows: list[dict[str, Any]], out: Path) -> None:
    """D over the steps, every signal and reduction."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True)
    for axis, signal in zip(axes, SIGNALS, strict=True):
        for reduction in REDUCTIONS:
            axis.plot(middle(rows, "distance", f"{signal} {reduction}"), label=reduction)
        axis.set(title=f"signal = {signal}", xlabel="step", yscale="log")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("D, median over prompts")
    axes[0].legend(title="reduction")
    save(figure, out / "distances")


def plot_difference(rows: list[dict[str, Any]], out: Path) -> None:
    """How much the two models differ, per step."""
    figure, axis = plt.subplots(figsize=(6, 3.4))
    every = np.array([row["difference"] for row in rows])
    axis.plot(every.T, color="0.8", lw=0.8)
    axis.plot(np.median(every, 0), color="#0072B2", label="median")
    axis.set(xlabel="step", ylabel="‖v_L − v_S‖ / ‖v_L‖", ylim=(0, None))
    axis.legend()
    axis.grid(alpha=0.3)
    save(figure, out / "difference")


def plot_worth(rows: list[dict[str, Any]], prices: Prices, out: Path) -> None:
    """f(M) of each kind of mask at two ratios, beside the break-even h(M)/(1 − s)."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True)
    colours = dict(zip(KINDS, ("#000000", "#0072B2", "#D55E00", "#009E73", "#999999"), strict=True))
    for axis, ratio in zip(axes, (0.15, 0.3), strict=True):
        for kind in KINDS:
            axis.plot(middle(rows, "f", f"{kind} {ratio}"), label=kind, color=colours[kind])
        for text, style in (("fresh", "--"), ("cached", ":")):
            level = break_even(prices.masked_ratio(ratio, text), prices.small_ratio)
            axis.axhline(level, color="#CC79A7", ls=style, label=f"break-even, text {text}")
        axis.set(title=f"M = {ratio}", xlabel="step", ylim=(0, 1.02))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("f(M), median over prompts")
    axes[1].legend(fontsize=8)
    save(figure, out / "worth")


def plot_where(pipe: Any, trajectory: Trajectory, out: Path) -> None:
    """Where large and small differ (paper Fig. 1b): the top 40 % beside the picture, at four steps."""
    steps = [round(share * (len(trajectory.large) - 1)) for share in (0.1, 0.3, 0.6, 1.0)]
    height, width = trajectory.layout.grid(trajectory.latents)
    figure, axes = plt.subplots(1, 5, figsize=(11, 2.5))
    vae = pipe.vae
    with torch.no_grad():
        latent = trajectory.latents[-1:] / vae.config.scaling_factor + vae.config.shift_factor
        picture = pipe.image_processor.postprocess(vae.decode(latent).sample, output_type="np")[0]
    axes[0].imshow(picture)
    axes[0].set_title("picture")
    for axis, step in zip(axes[1:], steps, strict=True):
        difference = trajectory.difference[step]
        top = difference >= difference.quantile(0.6)
        axis.imshow(top.view(height, width), cmap="gray")
        axis.set_title(f"top 40 % at step {step}")
    for axis in axes:
        axis.axis("off")
    save(figure, out / "where")


def save(figure: Any, path: Path) -> None:
    """PNG and SVG."""
    figure.tight_layout()
    for ending in ("png", "svg"):
        figure.savefig(path.with_suffix(f".{ending}"), dpi=110)
    plt.close(figure)


def main() -> None:
    """Follow, measure, plot and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("docs/results/science"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    pipe = hybridstitch.open_pair("mini")
    pipe.set_progress_bar_config(disable=True)
    prompts = heldout_prompts(args.prompts)
    prices = timed(pipe, prompts[0])
    rows, last = [], None
    for seed, prompt in enumerate(prompts):
        last = follow(pipe, prompt, steps=args.steps, guidance=GUIDANCE, seed=seed)
        rows.append({"prompt": prompt, **measured(last)})
    assert last is not None
    plot_distances(rows, args.out)
    plot_difference(rows, args.out)
    plot_worth(rows, prices, args.out)
    plot_where(pipe, last, args.out)
    cost = {
        text: {
            "s": prices.small_ratio,
            **{f"h({r})": prices.masked_ratio(r, text) for r in RATIOS},
            "L_l ms": prices.large * 1e3,
        }
        for text in UNGUIDED
    }
    (args.out / "costs.json").write_text(json.dumps({"machine": machine(), **cost}, indent=1), encoding="utf-8")
    (args.out / "raw.json").write_text(json.dumps({"machine": machine(), "rows": rows}), encoding="utf-8")
    for text, line in cost.items():
        print(text, {k: round(v, 3) for k, v in line.items()})
    print("D (denoised token) median at steps 1, 3, 9, 13, 25, last:", end=" ")
    curve = middle(rows, "distance", "denoised token")
    print([round(float(curve[min(i, len(curve) - 1)]), 4) for i in (1, 3, 9, 13, 25, 10**6)])
    for kind in KINDS:
        shares = middle(rows, "f", f"{kind} 0.3")
        picked = [round(float(shares[min(i, len(shares) - 1)]), 3) for i in (4, 9, 17, 25, 40)]
        print(f"f(.3) {kind:<10} at 4, 9, 17, 25, 40: {picked}")
    smallest = [round(median(row["distance"]["denoised token"][i] for row in rows), 4) for i in range(1, args.steps)]
    print("median D per step:", smallest)


if __name__ == "__main__":
    main()
