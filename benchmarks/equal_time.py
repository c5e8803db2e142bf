"""Every method at the same time: who is closest to the large model's picture?

One process, every prompt drawn by every method in turn, warm, end to end. A rival has one whole number that sets its
time (steps of the large model, the step at which it hands over, the percent of the tokens that it redraws); for each
prompt the number is chosen, from the two around the target, so that the rival's total time stays with that of the row
it is matched to. So totals agree within a step of one picture, and the pairs stay pairs.

    python -m benchmarks.equal_time --prompts 64

writes `docs/results/equal_time/` (raw.csv, table.json, table.md).
"""

import argparse
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image

import hybridstitch
from benchmarks.machine import machine
from hybridstitch import Policy
from hybridstitch.batch.heap import keep_freed_memory
from hybridstitch.calibrate.candidates import crowded
from hybridstitch.drawing.engine import PLAIN, Engine
from hybridstitch.evaluate.closeness import psnr, ssim
from hybridstitch.measure.intervals import mean_interval
from hybridstitch.mini.scenes import heldout_prompts
from hybridstitch.mini.score import MiniClip
from hybridstitch.policies.presets import preset
from hybridstitch.policies.skip import Skip

GUIDANCE = 4.0
FEW = ("L2 H2@0.15 S2", "L3 H2@0.15 S1", "L4 H2@0.15", "L4 H4@0.15", "L6 H2@0.15", "L8 H2@0.15")


@dataclass(slots=True)
class Method:
    """One row of the table.

    Attributes:
        name: as printed.
        run: (n) → (policy, steps) of the number that sets the time.
        match: name of the row it is compared with, whose time is the target.
        steered: whether it has such a number; where not, its time is as it comes.
        slope: seconds one more unit of n costs, and `base` at n = 0; measured in the warm-up.
    """

    name: str
    run: Callable[[int], tuple[str | Policy, int]]
    match: str | None = None
    steered: bool = True
    base: float = 0.0
    slope: float = 1.0
    seconds: list[float] = field(default_factory=list)
    used: list[int] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)

    def number(self, target: float) -> int:
        """The n for the next picture that brings the total time closest to the target total."""
        if self.match is None or not self.steered:
            return 0
        wanted = (target - sum(self.seconds) - self.base) / self.slope
        return max(1, round(wanted))


def methods(policy: str, steps: int, few: Sequence[str] = FEW, beside: str = "") -> list[Method]:
    """The rows: at `steps` steps, and few-step programs with fewer steps of the large model at their time.

    Args:
        policy: of the hybrid row.
        steps: T.
        few: programs of fewer steps.
        beside: a policy to compare the hybrid with as it is, in its own time.
    """
    rows = [
        Method("large", lambda _: ("large", steps)),
        Method("hybrid", lambda _: (policy, steps)),
        Method("SRDiffusion", lambda n: (f"L{min(n, steps)} S*", steps), "hybrid"),
        Method("T-Stitch", lambda n: (f"S{steps - min(n, steps)} L*", steps), "hybrid"),
        Method("region-adaptive", lambda n: (region(n), steps), "hybrid"),
        Method("fewer steps", lambda n: ("large", n), "hybrid"),
        Method("skip", lambda n: (skip(n, steps), steps), "hybrid"),
        Method("small", lambda _: ("small", steps)),
    ]
    if beside:
        rows.insert(2, Method(beside, lambda _: (beside, steps), "hybrid", steered=False))
    for program in few:
        count = sum(int(word[1:].partition("@")[0]) for word in program.split())
        rows.append(Method(program, lambda _, p=program, c=count: (p, c)))
        rows.append(Method(f"fewer steps at {program}", lambda n: ("large", n), program))
    return rows


def region(percent: int) -> Policy:
    """The preset of region-adaptive drawing, with text cached; its time is set by the tokens that it redraws."""
    policy: Any = preset("region-adaptive").policy
    return replace(policy, program=policy.program.replace("@0.5", f"@{min(percent, 100) / 100}"), text="cached")


def skip(count: int, steps: int) -> Policy:
    """The large model on some of the steps, where it does best."""
    return Skip(count, crowded(count, steps))


class Studio:
    """Draws and times."""

    def __init__(self, engine: Engine = PLAIN) -> None:
        """Open the miniature pair, run as the engine says; freed memory stays here, as with the command line."""
        keep_freed_memory()
        self.pipe: Any = hybridstitch.open_pair("mini", engine=engine)
        self.pipe.set_progress_bar_config(disable=True)

    def draw(self, prompt: str, policy: str | Policy, steps: int, seed: int) -> tuple[np.ndarray, float]:
        """One picture (H, W, 3), uint8, and its seconds end to end."""
        self.pipe.transformer.policy = policy
        start = perf_counter()
        picture = self.pipe(
            prompt,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            generator=torch.Generator().manual_seed(seed),
        ).images[0]
        return np.asarray(picture), perf_counter() - start


def calibrate(studio: Studio, rows: list[Method], prompts: list[str], steps: int) -> None:
    """Time each rival at two numbers, for the line it is steered by; also warms everything up."""
    for row in rows:
        if row.match is None or not row.steered:
            studio.draw(prompts[0], *row.run(0), 0)
            continue
        ends = (steps // 5, steps // 2) if row.match == "hybrid" else (3, 8)
        times = [min(studio.draw(p, *row.run(n), 0)[1] for p in prompts[:3]) for n in ends]
        row.slope = max((times[1] - times[0]) / (ends[1] - ends[0]), 1e-4)
        row.base = times[0] - row.slope * ends[0]


def compare(rows: list[Method], steps: int, count: int, seed: int) -> list[str]:
    """Draw everything, prompt by prompt, and give the prompts."""
    studio, prompts = Studio(), heldout_prompts(count, seed=seed)
    calibrate(studio, rows, prompts, steps)
    by_name = {row.name: row for row in rows}
    for index, prompt in enumerate(prompts):
        for row in rows:
            number = row.number(sum(by_name[row.match].seconds) if row.match else 0.0)
            picture, seconds = studio.draw(prompt, *row.run(number), seed + index)
            row.seconds.append(seconds)
            row.used.append(number)
            row.pictures.append(picture)
        print(f"{index + 1}/{count}  " + "  ".join(f"{r.name} {mean(r.seconds):.2f}s" for r in rows[:5]), flush=True)
    return prompts


def scored(rows: list[Method], prompts: list[str]) -> Iterator[dict[str, Any]]:
    """Per picture: closeness to the large picture and CLIP-mini."""
    clip = MiniClip.load()
    reference = rows[0].pictures
    for row in rows:
        fits = clip.scores([Image.fromarray(picture) for picture in row.pictures], prompts)
        for index, picture in enumerate(row.pictures):
            yield {
                "method": row.name,
                "prompt": prompts[index],
                "image": index,
                "number": row.used[index],
                "seconds": row.seconds[index],
                "psnr": min(psnr(picture, reference[index]), 99.0),
                "ssim": ssim(picture, reference[index]),
                "clip_mini": float(fits[index]),
            }


def table(rows: list[Method], raw: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per method: time, speedup, scores with intervals, and the paired difference to the row it is matched to."""
    of = {row.name: [r for r in raw if r["method"] == row.name] for row in rows}
    large = mean(r["seconds"] for r in of["large"])
    lines = []
    for row in rows:
        mine = of[row.name]
        line: dict[str, Any] = {
            "method": row.name,
            "n": len(mine),
            "number": mean(row.used) if row.match and row.steered else None,
            "seconds": mean(row.seconds),
            "speedup": large / mean(row.seconds),
            **{m: mean_interval([r[m] for r in mine]) for m in ("psnr", "ssim", "clip_mini")},
        }
        if row.match:
            other = of[row.match]
            line["time_ratio"] = sum(row.seconds) / sum(r["seconds"] for r in other)
            for metric in ("psnr", "ssim", "clip_mini"):
                gap = [b[metric] - a[metric] for a, b in zip(mine, other, strict=True)]
                line[f"{metric}_ahead"] = mean_interval(gap)
        lines.append(line)
    return lines


def markdown(lines: list[dict[str, Any]]) -> str:
    """The table as a page shows it; "ahead" is the matched row minus this one, paired."""
    head = "| method | seconds | speedup | time / matched | PSNR, dB | SSIM | CLIP-mini | stitched ahead by, dB |"
    out = [head, "|---|---|---|---|---|---|---|---|"]
    for line in lines:
        number = "" if line["number"] is None else f" (mean {line['number']:.2f})"
        matched, ahead = line.get("time_ratio"), line.get("psnr_ahead")
        out.append(
            f"| {line['method']}{number} | {line['seconds']:.3f} | {line['speedup']:.2f} "
            f"| {'' if matched is None else f'{matched:.3f}'} | {line['psnr']} | {line['ssim']} | {line['clip_mini']} "
            f"| {'' if ahead is None else ahead} |"
        )
    return "\n".join(out) + "\n"


def main() -> None:
    """Compare, score, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--policy", default="", help="of the hybrid row; default: the miniature pair's own")
    parser.add_argument("--beside", default="", help="another policy, in its own time")
    parser.add_argument("--no-few", action="store_true", help="leave the few-step programs out")
    parser.add_argument("--out", type=Path, default=Path("docs/results/equal_time"))
    args = parser.parse_args()
    policy = args.policy or "hybridstitch"
    rows = methods(policy, args.steps, () if args.no_few else FEW, args.beside)
    prompts = compare(rows, args.steps, args.prompts, args.seed)
    raw = list(scored(rows, prompts))
    lines = table(rows, raw)
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "raw.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(raw[0]))
        writer.writeheader()
        writer.writerows(raw)
    report = {"machine": machine(), "policy": policy, "guidance": GUIDANCE, "table": lines}
    (args.out / "table.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (args.out / "table.md").write_text(markdown(lines), encoding="utf-8")
    print(markdown(lines))


if __name__ == "__main__":
    main()
