"""How long N workers take for J pictures: a model of few numbers, fitted to `benchmarks.scale`, drawn for 1 to 4,096.

    T(N, J) = o + N·B / W + max(⌈J / N⌉·t, J·d)

o      seconds in which a worker comes up and opens a pair that lies on its own disk; median of those measured
N·B/W  seconds in which N workers read B bytes of models each from a store that gives W bytes a second to all
t      seconds of a picture at one worker
d      seconds of the driver a picture: it hands out work and hears of the end, one after the other

`e`, the efficiency from 1 to 2 workers that the benchmark measured on one machine, is what the model cannot explain
there: cores that share memory. Between machines nothing of it is left.

    python -m benchmarks.scale_model

reads `docs/results/scale.json` and writes `docs/results/scale_model.{csv,md,png,svg}`.
"""

import argparse
import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.rounds import COLOURS, RESULTS, markdown, save
from hybridstitch.policies.presets.paper import TABLE_1

WORKERS = [2**k for k in range(13)]
CAPTIONS = 5000
BYTES = 2 * (8.1e9 + 2.0e9 + 0.9e9 + 4.8e9)  # bfloat16: both transformers, two CLIPs, T5, of the paper's pair
STORES = {"one NFS server, 1 GB/s": 1e9, "an object store, 100 GB/s": 1e11}


@dataclass(frozen=True)
class Fitted:
    """The numbers of the model; see the module.

    Attributes:
        opening: o. driver: d, where workers keep pictures. sent: d, where 1.5 MB come back with each. efficiency: e.
    """

    opening: float
    driver: float
    sent: float
    efficiency: float

    @classmethod
    def of(cls, measured: Mapping[str, Any]) -> "Fitted":
        """From the benchmark's file."""
        raw = measured["raw"]
        row = next(row for row in measured["table"] if row["way"] == "ray")
        return cls(
            opening=median(s for n in (1, 2) for s in raw["drawing"][f"ray {n}"]["opening_seconds"]),
            driver=median(raw["driver"]["kept there"]),
            sent=median(raw["driver"]["sent, 1.5 MB"]),
            efficiency=row["efficiency"],
        )

    def seconds(self, workers: int, pictures: int, each: float, *, store: float, driver: float) -> float:
        """T(N, J)."""
        drawing = max(ceil(pictures / workers) * each, pictures * driver)
        return self.opening + workers * BYTES / store + drawing


def table_1() -> float:
    """Seconds that one picture by each method of Table 1 takes, all together, as the paper has them."""
    return sum(preset.paper.latency_seconds for preset in TABLE_1 if preset.paper is not None)


def rows(fitted: Fitted) -> list[dict[str, float]]:
    """5,000 captions by all methods of Table 1, for each number of workers."""
    methods = sum(preset.paper is not None for preset in TABLE_1)
    pictures, each = CAPTIONS * methods, table_1() / methods
    found = []
    for n in WORKERS:
        row: dict[str, float] = {"workers": n, "ideal hours": pictures * each / n / 3600}
        for name, store in STORES.items():
            for how, driver in (("shared folder", fitted.driver), ("--collect", fitted.sent)):
                seconds = fitted.seconds(n, pictures, each, store=store, driver=driver)
                row[f"hours, {name}, {how}"] = seconds / 3600
        found.append(row)
    return found


def draw(found: list[dict[str, float]], path: Path) -> None:
    """Speedup over one worker, log-log."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.5))
    axis.plot(WORKERS, WORKERS, color="#bbbbbb", label="N workers, N times as fast")
    for colour, name in zip(COLOURS[1:], [name for name in found[0] if name.startswith("hours, ")], strict=False):
        axis.plot(
            WORKERS, [found[0][name] / row[name] for row in found], color=colour, marker="o", markersize=3,
            label=name.removeprefix("hours, "),
        )  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel="workers, one GPU each", ylabel="times as fast as one")
    axis.set_xticks(WORKERS, [f"{n:,}" for n in WORKERS], rotation=45)
    axis.set_title("35,000 pictures of Table 1, by the model", fontsize=10)
    axis.legend(fontsize=8, frameon=False)
    save(figure, path)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of scale.json, and of what is written")
    folder = parser.parse_args().results
    fitted = Fitted.of(json.loads((folder / "scale.json").read_text(encoding="utf-8")))
    found = rows(fitted)
    path = folder / "scale_model"
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    text = (
        f"o = {fitted.opening:.1f} s, d = {1000 * fitted.driver:.2f} ms (sent back: {1000 * fitted.sent:.1f} ms), "
        f"e = {fitted.efficiency:.3f}\n\n5,000 captions by Table 1's {len(TABLE_1)} methods: "
        f"{CAPTIONS * table_1() / 3600:.0f} hours of one of the paper's GPUs\n\n{markdown(found)}"
    )
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    draw(found, path)


if __name__ == "__main__":
    main()
