"""What a perfect model would score: renderings of the miniature world against other renderings of it.

With references of the same prompts, and with references of other prompts, at several N. What is left of FD is bias and
luck; a method's FD-mini means something where it lies well above.

    python -m benchmarks.metric_floors

writes `docs/results/metric_floors.json` and prints the table.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from hybridstitch.evaluate.metrics import open_metrics
from hybridstitch.evaluate.pictures import References, rendered
from hybridstitch.mini.scenes import heldout_prompts

NUMBERS = (16, 32, 96, 256)
DRAWS = 12  # of N prompts out of all


def floors(prompts: list[str]) -> list[dict[str, Any]]:
    """FD-mini and KID-mini at each N, mean and standard deviation over draws of prompts."""
    metrics = open_metrics(["FD-mini", "KID-mini"])
    images, same = (list(rendered(prompts, seed=seed).pictures) for seed in (1, 2))
    rng, rows = np.random.default_rng(0), []
    for number in NUMBERS:
        found: dict[str, list[float]] = {}
        for _ in range(DRAWS):
            order = rng.permutation(len(prompts))
            own, others = order[:number], order[number : number + 256]
            mine = [images[i] for i in own]
            given = {
                "same prompts": References(name="same", pictures=[same[i] for i in own], matched=True),
                "other prompts": References(name="other", pictures=[same[i] for i in others], matched=False),
            }
            for name, references in given.items():
                for metric, score in metrics.items():
                    value = score(mine, [prompts[i] for i in own], references).value
                    found.setdefault(f"{metric}, {name}", []).append(value)
        rows.append({"n": number, **{key: [float(np.mean(v)), float(np.std(v))] for key, v in found.items()}})
    return rows


def main() -> None:
    """Score, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/results/metric_floors.json"))
    args = parser.parse_args()
    rows = floors(heldout_prompts(512, seed=3))
    keys = [key for key in rows[0] if key != "n"]
    print("| N | " + " | ".join(keys) + " |\n|---|" + "---|" * len(keys))
    for row in rows:
        print(f"| {row['n']} | " + " | ".join(f"{row[key][0]:.3f} ± {row[key][1]:.3f}" for key in keys) + " |")
    args.out.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
