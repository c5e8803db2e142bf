"""Every preset and rival on the miniature pair in one process, with the same engine: time, memory, and how good.

    python -m benchmarks.end_to_end                                  64 prompts, eager
    python -m benchmarks.end_to_end --engine compile=whole,snap=16 --name end_to_end_compiled

Each prompt is drawn by every method in turn, warm, from prompt to picture. Closeness is PSNR to the large model's
picture of the same noise at 50 steps; FD-mini compares with renderings of the same scenes, CLIP-mini with the prompt.
Methods that nothing beats in both time and closeness (or FD-mini) are the front, and drawn as a line. The rows reach
from the large model with fewer steps, over the rivals, to HybridStitch and its stacked forms; cache-dit joins where it
is installed, eager only. Peak memory is what tensors of one call hold beside the weights (`benchmarks.live`).
Writes `docs/results/end_to_end.{json,md,png,svg}`.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from itertools import product
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.text import Text

from benchmarks.equal_time import FEW, GUIDANCE, Studio, skip
from benchmarks.live import Live
from benchmarks.rounds import COLOURS, parser, save, started, write
from hybridstitch import Engine, HybridStitch, LargeOnly, Policy, parse_engine, policy_named
from hybridstitch.evaluate.metrics import open_metrics
from hybridstitch.evaluate.pictures import large_pictures, rendered
from hybridstitch.mini.scenes import heldout_prompts
from hybridstitch.policies.presets import PRESETS, STACKED
from hybridstitch.policies.reuse import Reuse

METRICS = ("PSNR", "SSIM", "FD-mini", "CLIP-mini")
FEWER = (30, 20, 15, 10, 7, 5, 4, 3)
MARKS = {"large": "o", "skip": "v", "rival": "s", "stitched": "^", "few-step": "D"}
TICKS = (0.1, 0.2, 0.3, 0.5, 1, 2, 3, 5, 10)  # seconds


@dataclass(slots=True)
class Method:
    """One row.

    Attributes:
        name: as printed.
        kind: one of `MARKS`.
        policy: who draws what.
        steps: T.
        studio: which of the opened pairs draws it.
        seconds, pictures: of each prompt.
        peak: bytes held by tensors of one call.
    """

    name: str
    kind: str
    policy: str | Policy
    steps: int
    studio: str = "engine"
    seconds: list[float] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)
    peak: int = 0


def stacked(policy: HybridStitch) -> dict[str, Policy]:
    """HybridStitch of the pair's own thresholds, and what can be put on top of it."""
    fresh = replace(policy, text="fresh")
    cached = replace(policy, text="cached")
    masks = {f"HybridStitch, M = {m}": replace(fresh, masks=(m,)) for m in (0.1, 0.3, 0.4)}
    return {
        **masks,
        "HybridStitch, text fresh": fresh,
        "HybridStitch, text cached": cached,
        "HybridStitch, cached, cond": replace(cached, branches="cond"),
        "HybridStitch, cached, masks .3 and .1": replace(
            cached, masks=(0.3, 0.1), thresholds=(policy.thresholds[0], *policy.thresholds[-1:] * 2)
        ),
        "reuse .05 of HybridStitch, cached": Reuse(cached, bound=0.05),
    }


def methods(steps: int, engine: Engine) -> list[Method]:
    """All rows; the first is what the others are compared with."""
    rows = [Method("large, eager", "large", "large", steps, "eager")]
    rows += [Method("large, compiled", "large", "large", steps)] if engine.compile != "off" else []
    rows += [Method(f"large, {few} steps", "large", "large", few) for few in FEWER if few < steps]
    rows += [Method(f"skip, {few} large steps", "skip", skip(few, steps), steps) for few in (25, 17, 13, 10)]
    rows += [Method("small", "rival", "small", steps)]
    rows += [Method(f"T-Stitch {share}", "rival", f"t-stitch:ratio={share}", steps) for share in (0.4, 0.6, 0.8)]
    # 20 %: MoDM's order, too
    rows += [Method(f"SRDiffusion {share} %", "rival", f"L{share}% S*", steps) for share in (10, 20, 36, 50)]
    named = {"region-adaptive": "region-adaptive", "FlowBlending": "flowblending"}
    rows += [Method(name, "rival", policy_named(preset), steps) for name, preset in named.items()]
    rows += [Method(f"reuse {bound}", "rival", Reuse(LargeOnly(), bound=bound), steps) for bound in (0.05, 0.1)]
    if find_spec("cache_dit") is not None:
        rows += [Method("cache-dit, eager", "rival", "large", steps, "cache-dit")]
    own = PRESETS["hybridstitch"].policy
    assert isinstance(own, HybridStitch)
    rows += [Method(name, "stitched", policy, steps) for name, policy in stacked(own).items()]
    rows += [Method(STACKED.name, "stitched", STACKED.policy, steps)] if steps == STACKED.steps else []
    for program in FEW:
        count = sum(int(word[1:].partition("@")[0]) for word in program.split())
        rows.append(Method(program, "few-step", program, count))
    return rows


def with_cache_dit(studio: Studio, steps: int) -> Studio:
    """cache-dit on the large model, as its authors recommend for a transformer alone."""
    import cache_dit  # pyright: ignore[reportMissingImports]

    large = studio.pipe.transformer.large
    pattern = cache_dit.ForwardPattern.Pattern_1
    adapter = cache_dit.BlockAdapter(transformer=large, blocks=large.transformer_blocks, forward_pattern=pattern)
    config = cache_dit.DBCacheConfig(num_inference_steps=steps, Fn_compute_blocks=1, residual_diff_threshold=0.12)
    cache_dit.enable_cache(adapter, cache_config=config)
    return studio


def compare(rows: list[Method], studios: dict[str, Studio], prompts: Sequence[str]) -> None:
    """Draw everything, prompt by prompt; each method once before, for its memory and to warm it up."""
    for row in rows:
        studio = studios[row.studio]
        with Live() if studio.pipe.transformer.engine.compile == "off" else torch.no_grad() as live:
            studio.draw(prompts[0], row.policy, row.steps, 0)
        row.peak = live.peak if isinstance(live, Live) else 0
    for index, prompt in enumerate(prompts):
        for row in rows:
            picture, seconds = studios[row.studio].draw(prompt, row.policy, row.steps, index)
            row.seconds.append(seconds)
            row.pictures.append(picture)
        print(f"{index + 1}/{len(prompts)}  {sum(row.seconds[-1] for row in rows):.1f} s", flush=True)


def scored(rows: list[Method], prompts: Sequence[str]) -> list[dict[str, Any]]:
    """A table row per method."""
    references = {"prompts": None, "pairs": large_pictures(rows[0].pictures), "set": rendered(prompts)}
    metrics = open_metrics(METRICS)
    table = []
    for row in rows:
        line: dict[str, Any] = {
            "method": row.name,
            "kind": row.kind,
            "policy": str(row.policy),
            "steps": row.steps,
            "seconds": mean(row.seconds),
            "speedup": mean(rows[0].seconds) / mean(row.seconds),
            "peak MiB": row.peak / 2**20 if row.peak else None,
        }
        for name, metric in metrics.items():
            score = metric(row.pictures, list(prompts), references[metric.wants])
            line[name] = str(score.interval)
            line[f"{name} value"] = score.value
        table.append(line)
    return table


def front(table: Sequence[dict[str, Any]], value: Callable[[dict[str, Any]], float]) -> list[dict[str, Any]]:
    """Rows that no row beats in time and value (larger is better), by time."""
    best: list[dict[str, Any]] = []
    for row in sorted(table, key=lambda row: row["seconds"]):
        if not best or value(row) > value(best[-1]):
            best.append(row)
    return best


def plot(table: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """PSNR and FD-mini against time; dotted the large model with fewer steps, drawn or repeated; grey the front."""
    figure, axes = plt.subplots(2, 1, figsize=(9, 11))
    panels = {
        "PSNR value": ("PSNR to the large model's picture, dB", 1),
        "FD-mini value": ("FD-mini (less is better)", -1),
    }
    for axis, (key, (label, sign)) in zip(axes, panels.items(), strict=True):
        shown = [
            row for row in table if not (key == "PSNR value" and row["kind"] == "large" and row["PSNR value"] > 60)
        ]
        for colour, (kind, mark) in zip(COLOURS, MARKS.items(), strict=False):
            rows = [row for row in shown if row["kind"] == kind]
            rows.sort(key=lambda row: row["seconds"])
            line = ":" if kind in ("large", "skip") else ""
            axis.plot([r["seconds"] for r in rows], [r[key] for r in rows], mark + line, color=colour, ms=5, label=kind)
        best = front(shown, lambda row, key=key, sign=sign: sign * row[key])
        axis.plot([r["seconds"] for r in best], [r[key] for r in best], "-", color="0.6", zorder=0, label="front")
        axis.set(xscale="log", xlabel="seconds from prompt to picture", ylabel=label)
        low, high = axis.get_xlim()
        inside = [tick for tick in TICKS if low <= tick <= high]
        axis.set_xticks(inside, [f"{tick:g}" for tick in inside])
        axis.minorticks_off()
        if sign < 0:
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
        name_points(axis, best, [(row["seconds"], row[key]) for row in shown], key)
    axes[0].legend(fontsize=9)
    save(figure, args.out / args.name)


def name_points(axis: Any, best: Sequence[dict[str, Any]], points: Sequence[tuple[float, float]], key: str) -> None:
    """Write the names of rows beside their points, each at the first place where it covers no point and no name."""
    axis.figure.canvas.draw()
    renderer = axis.figure.canvas.get_renderer()
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in axis.transData.transform(points)]  # pixels
    for row in best:
        for right, up in sorted(product((True, False), range(-44, 45, 6)), key=lambda place: abs(place[1])):
            text = axis.annotate(
                row["method"],
                (row["seconds"], row[key]),
                xytext=(8 if right else -8, up),
                textcoords="offset points",
                ha="left" if right else "right",
                va="center",
                fontsize=8,
                arrowprops={"arrowstyle": "-", "color": "0.7", "lw": 0.6},
            )
            text.update_positions(renderer)
            box = Text.get_window_extent(text)  # without the line to its point
            free = all(box.x1 < a or c < box.x0 or box.y1 < b or d < box.y0 for a, b, c, d in taken)
            if free and axis.bbox.x0 < box.x0 and box.x1 < axis.bbox.x1 and axis.bbox.y0 < box.y0:
                taken.append((box.x0, box.y0, box.x1, box.y1))
                break
            text.remove()


def main() -> None:
    """Draw, score, print and write."""
    options = parser(__doc__)
    options.add_argument("--prompts", type=int, default=64)
    options.add_argument("--steps", type=int, default=50)
    options.add_argument("--seed", type=int, default=0, help="which held-out prompts")
    options.add_argument("--engine", default="", help="of every row but those that say eager: compile=whole,snap=16")
    options.add_argument("--name", default="end_to_end", help="of the files")
    args = options.parse_args()
    started(args)
    prompts = heldout_prompts(args.prompts, seed=args.seed)
    engine = parse_engine(args.engine)
    rows = methods(args.steps, engine)
    studios = {"engine": Studio(engine)}
    studios["eager"] = Studio() if engine != Engine() else studios["engine"]
    if any(row.studio == "cache-dit" for row in rows):
        studios["cache-dit"] = with_cache_dit(Studio(), args.steps)
    compare(rows, studios, prompts)
    table = scored(rows, prompts)
    raw = {row.name: row.seconds for row in rows}
    shown = [{k: v for k, v in row.items() if not k.endswith(" value") and k != "policy"} for row in table]
    about = {"engine": args.engine, "guidance": GUIDANCE, "prompts": len(prompts), "rows": table}
    write(args.out, args.name, shown, raw, **about)
    plot(table, args)


if __name__ == "__main__":
    main()
