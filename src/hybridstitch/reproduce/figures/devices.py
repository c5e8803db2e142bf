"""Figure 5: latency and speedup by device.

Bars are medians of the denoising loop over the timed prompts, whiskers a 95 % bootstrap interval of the median; the
speedup is that of medians. Result folders of other machines are merged: copy each one's `config.json` and `latency.csv`
into OUT/machines/NAME/ (or give the whole folder that name). The paper's speedups, on an RTX 6000 Ada, stand beside.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...batch.crew import Crew
from ...measure.intervals import Values, bootstrapped
from ...policies.presets import PRESETS
from ...report.colours import INK, QUIET, RULE
from ..equipment import Equipment
from ..results import Results
from ..settings import ReproductionError
from . import style
from .grid import METHODS

MARKS = ("o", "s", "^", "v", "P", "X")  # one a machine
RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What one machine measured.

    Attributes:
        name: of the device.
        seconds: per method, of each timed prompt.
    """

    name: str
    seconds: dict[str, list[float]]


def draw(results: Results, crew: Crew[Equipment]) -> list[Path]:
    """Write fig5 from this folder and those in OUT/machines."""
    out = results.settings.out
    others = sorted(path for path in (out / "machines").glob("*") if path.is_dir())
    return plot([read(folder) for folder in (out, *others)], results.settings.figures)


def read(folder: Path) -> Machine:
    """A machine's timings.

    Args:
        folder: with config.json and latency.csv.

    Raises:
        ReproductionError: one of them is missing or damaged.
    """
    try:
        name = json.loads((folder / "config.json").read_text(encoding="utf-8"))["hardware"]["name"]
        with (folder / "latency.csv").open(encoding="utf-8", newline="") as file:
            rows = {(row["method"], row["image"]): float(row["denoising_seconds"]) for row in csv.DictReader(file)}
    except FileNotFoundError as error:
        raise ReproductionError(f"{error.filename} is missing: figure 5 needs config.json and latency.csv") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ReproductionError(f"{folder} holds no timings ({error}); copy a result folder's files again") from error
    seconds: dict[str, list[float]] = {}
    for (method, _), value in rows.items():  # of twins, which were timed again, the last one
        seconds.setdefault(method, []).append(value)
    if "large" not in seconds:
        raise ReproductionError(f"{folder / 'latency.csv'} has no timings of the large model; speedups need them")
    return Machine(name=name, seconds=seconds)


def plot(machines: Sequence[Machine], folder: Path) -> list[Path]:
    """A panel of bars a machine, and the speedups of all beside the paper's.

    Args:
        machines: the first is this one.
        folder: where fig5 goes.
    """
    shown = [name for name in METHODS if all(name in machine.seconds for machine in machines)]
    figure = style.figure(3.6 + 3.4 * len(machines), 4.2)
    panels = figure.subplots(1, len(machines) + 1, width_ratios=[1.0] * len(machines) + [1.25], squeeze=False)[0]
    places = np.arange(len(shown))
    rows = []
    for machine, axes in zip(machines, panels, strict=False):
        number = min(len(machine.seconds[name]) for name in shown)
        for place, name in zip(places, shown, strict=True):
            time = bootstrapped(np.median, machine.seconds[name], resamples=RESAMPLES)
            both = (machine.seconds[one][:number] for one in ("large", name))
            fast = bootstrapped(faster, *both, resamples=RESAMPLES)
            axes.bar(place, time.mean, width=0.72, color=style.colour(name), zorder=2)
            axes.plot([place] * 2, [time.low, time.high], color=INK, linewidth=1.2, zorder=3)
            axes.annotate(
                f"{fast.mean:.2f}×", (place, time.high), xytext=(0, 3), textcoords="offset points", ha="center",
                fontsize=8.5, color=INK,
            )  # fmt: skip
            rows.append(
                {
                    "device": machine.name,
                    "method": name,
                    "n": len(machine.seconds[name]),
                    "seconds": f"{time.mean:.5f}",
                    "seconds_low": f"{time.low:.5f}",
                    "seconds_high": f"{time.high:.5f}",
                    "speedup": f"{fast.mean:.4f}",
                    "speedup_low": f"{fast.low:.4f}",
                    "speedup_high": f"{fast.high:.4f}",
                }
            )
        axes.set(ylabel="seconds of the denoising loop" if axes is panels[0] else "")
        style.title(axes, f"{_short(machine.name)}, n = {number}")
        axes.margins(y=0.1)
        style.quiet(axes)
    speeds, mine = panels[-1], {(row["device"], row["method"]): row for row in rows}
    for k, machine in enumerate(machines):
        shift = (k - (len(machines) - 1) / 2) * 0.16
        for place, name in zip(places, shown, strict=True):
            row = mine[machine.name, name]
            low, value, high = (float(row[key]) for key in ("speedup_low", "speedup", "speedup_high"))
            speeds.plot([place + shift] * 2, [low, high], color=style.colour(name), linewidth=1.6, zorder=3)
            speeds.plot(place + shift, value, MARKS[k % len(MARKS)], color=style.colour(name), markersize=7, zorder=4)
        speeds.plot([], [], MARKS[k % len(MARKS)], color=QUIET, linestyle="none", label=_short(machine.name))
    for place, name in zip(places, shown, strict=True):
        paper = PRESETS[name].paper
        if paper is not None:
            speeds.plot([place - 0.34, place + 0.34], [paper.speedup] * 2, color=INK, linewidth=1.3, zorder=2)
    speeds.plot([], [], color=INK, linewidth=1.3, label="the paper's, RTX 6000 Ada")
    speeds.axhline(1, color=RULE, linewidth=1)
    speeds.set(ylabel="speedup over the large model")
    speeds.margins(y=0.25)
    style.quiet(speeds)
    speeds.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="upper left")
    for axes in panels:
        axes.set_xticks(places, [style.label(name) for name in shown], rotation=40, ha="right", rotation_mode="anchor")
        axes.tick_params(axis="x", labelcolor=INK, length=0)
    return style.save(figure, folder, "fig5", rows)


def faster(large: Values, seconds: Values, *, axis: int) -> Values:
    """Median of the large model over that of a method."""
    return np.median(large, axis=axis) / np.median(seconds, axis=axis)


def _short(name: str, most: int = 30) -> str:
    words = name.replace("(R)", "").replace("(TM)", "").split()
    text = " ".join(word for word in words if word not in ("CPU", "Processor"))
    return text if len(text) <= most else text[: most - 1] + "…"
