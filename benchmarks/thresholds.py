"""Thresholds of the miniature pair: which stage lengths, masks and text buy the closest picture for their time?

Candidates share their steps in lockstep, so hundreds of pictures cost a few. Seconds are those of the models on this
machine, summed over each picture's own path. The prompts are not those of the other benchmarks.

    python -m benchmarks.thresholds --prompts 8

writes `docs/results/thresholds.csv` and prints the table, fastest first.
"""

import argparse
import csv
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any

import hybridstitch
from hybridstitch import HybridStitch, LargeOnly, Schedule
from hybridstitch.evaluate.closeness import psnr, ssim
from hybridstitch.measure.lockstep import draw_together
from hybridstitch.measure.start import decode, prepare
from hybridstitch.mini.scenes import heldout_prompts
from hybridstitch.policies.policy import Policy

STEPS, GUIDANCE, PROMPTS_SEED = 50, 4.0, 11


def candidates() -> dict[str, Policy]:
    """By string: the large model, stage lengths × masks × text × last thresholds, and SRDiffusion's programs."""
    found: list[Policy] = [LargeOnly(), *(Schedule(f"L{n} S*") for n in (10, 14, 18, 22))]
    texts, lasts = ("fresh", "cached"), (0.07, 0.09, 0.11, 0.13)
    for least, mask, text, last in product((0.16, 0.2, 0.24), (0.2, 0.3), texts, lasts):
        found.append(
            HybridStitch(masks=(mask,), thresholds=(0.13, last), min_large=least, patience=2, text=text)  # pyright: ignore
        )
    return {str(policy): policy for policy in found}


def main() -> None:
    """Draw, score, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("docs/results/thresholds.csv"))
    args = parser.parse_args()
    pipe, policies = hybridstitch.open_pair("mini"), candidates()
    rows: list[dict[str, Any]] = []
    for index, prompt in enumerate(heldout_prompts(args.prompts, seed=PROMPTS_SEED)):
        start = prepare(pipe, prompt, steps=STEPS, guidance=GUIDANCE, seed=index)
        drawn = draw_together(pipe, start, policies)
        reference = decode(pipe, start, drawn["large"].latent)
        for name, one in drawn.items():
            picture = decode(pipe, start, one.latent)
            rows.append(
                {
                    "policy": name,
                    "image": index,
                    "seconds": one.trace.seconds,
                    "switches": " ".join(map(str, one.trace.switches(0))),
                    "psnr": min(psnr(picture, reference), 99.0),
                    "ssim": ssim(picture, reference),
                }
            )
        print(f"{index + 1}/{args.prompts}", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    of = {name: [row for row in rows if row["policy"] == name] for name in policies}
    large = mean(row["seconds"] for row in of["large"])
    print("| policy | speedup | PSNR, dB | SSIM | last switch, median |\n|---|---|---|---|---|")
    for name, mine in sorted(of.items(), key=lambda item: mean(row["seconds"] for row in item[1])):
        last = median(int((row["switches"] or str(STEPS)).split()[-1]) for row in mine)
        scores = f"{mean(r['psnr'] for r in mine):.2f} | {mean(r['ssim'] for r in mine):.3f}"
        print(f"| {name} | {large / mean(row['seconds'] for row in mine):.2f} | {scores} | {last:g} |")


if __name__ == "__main__":
    main()
