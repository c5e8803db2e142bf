"""How all figures look: one colour and one marker a method, quiet axes, PNG and SVG, the data beside them."""

import csv
import io
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ...disk import files as disk
from ...report.colours import BOTH, INK, METHODS, QUIET, RULE

DPI = 150
MASKS = {"10": "#d3b3dc", "20": "#b27fc0", "30": BOTH, "40": "#561c66"}  # HybridStitch by mask, light to dark
LABELS = {
    "large": "Large",
    "small": "Small",
    "t-stitch": "T-Stitch",
    "sr-diffusion": "SRDiffusion",
    "fewer-steps": "Large, fewer steps",
    "flowblending": "FlowBlending",
    "modm": "MoDM",
    "region-adaptive": "Region-adaptive",
    "step-repetition": "Step repetition",
}
MARKERS = {"large": "*", "small": "v", "t-stitch": "^", "sr-diffusion": "s", "fewer-steps": "D"}


def method_of(name: str) -> str:
    """The method a row is of: "large 14 steps" and "fewer-steps at …" are fewer steps, "t-stitch at …" is T-Stitch."""
    first = name.split(" ")[0]
    return "fewer-steps" if first == "large" and name != "large" else first


def colour(name: str) -> str:
    """A row's colour."""
    method = method_of(name)
    if method.startswith("hybridstitch"):
        return MASKS.get(method.split("-")[1], BOTH)
    return METHODS.get(method, METHODS["schedule"])


def marker(name: str) -> str:
    """A row's marker."""
    return MARKERS.get(method_of(name), "o")


def label(name: str) -> str:
    """A method's name as figures print it."""
    method = method_of(name)
    if method.startswith("hybridstitch"):
        _, first, *rest = method.split("-")
        masks = "-".join(f"{part} %" for part in (first, *rest) if part.isdigit())
        return " ".join(["HybridStitch", masks, *(part for part in rest if not part.isdigit())])
    return LABELS.get(method, method)


def figure(width: float, height: float) -> Figure:
    """A white figure, in inches, that lays its axes out itself."""
    made = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(made)
    return made


def pictures(
    cells: Sequence[tuple[str, Sequence[tuple[NDArray[np.uint8], str]]]], heads: Sequence[str]
) -> tuple[Figure, list[Axes]]:
    """Pictures in rows and columns, an inch and a half wide each.

    Args:
        cells: per row the prompt, which stands at its left, and its pictures with the words below each.
        heads: above the columns.

    Returns:
        the figure, and the axes of its first row.
    """
    height, width = cells[0][1][0][0].shape[:2]
    made = figure(1.5 * (len(heads) + 1), 1.5 * len(cells) * (height / width + 0.3))  # room to spare: `save` cuts it
    made.set_layout_engine("compressed", w_pad=0.03, h_pad=0.02, wspace=0, hspace=0)
    grid = made.subplots(len(cells), len(heads), squeeze=False)
    for line, (prompt, found) in zip(grid, cells, strict=True):
        line[0].set_ylabel(
            folded(prompt, 19, 7), rotation=0, ha="right", va="center", fontsize=8.5, style="italic", color=INK
        )
        for axes, (picture, below) in zip(line, found, strict=True):
            axes.imshow(picture, interpolation="lanczos")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(color=RULE, linewidth=0.6)
            axes.set_xlabel(below, fontsize=8, color=QUIET, labelpad=2)
    for axes, head in zip(grid[0], heads, strict=True):
        axes.set_title(head, fontsize=8.5, color=QUIET, pad=8)
    return made, list(grid[0])


def quiet(axes: Axes, *, grid: str = "y") -> None:
    """Thin rules, small grey ticks, no box.

    Args:
        axes: whose.
        grid: "x", "y", "both" or "" for none.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(labelsize=9, colors=QUIET, color=RULE, which="both")
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set(color=INK, fontsize=10)
    if grid:
        axes.grid(axis=grid, color=RULE, linewidth=0.6)  # pyright: ignore[reportArgumentType]
    axes.set_axisbelow(True)


def title(axes: Axes, text: str, *, pad: float = 8) -> None:
    """A title on the left, `pad` points above the axes."""
    axes.set_title(text, loc="left", fontsize=11, color=INK, pad=pad)


def times(factor: float) -> Callable[[Any], Any]:
    """A scale for a second axis."""
    return lambda values: values * factor


def percent(share: float) -> str:
    """0.4 as "40 %"."""
    return f"{100 * share:.0f} %"


def folded(text: str, width: int, lines: int) -> str:
    """A text on at most so many lines of at most so many letters."""
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" …"))


def save(
    made: Figure, folder: Path, name: str, rows: Sequence[Mapping[str, Any]], *, about: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write NAME.png and NAME.svg, and the data beside them: rows as NAME.csv, what is no table as NAME.json.

    Args:
        made: the figure.
        folder: where; made if need be.
        name: without ending.
        rows: of one table, all with the same columns.
        about: a JSON object, if there is one.

    Returns:
        the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with rc_context({"svg.hashsalt": name}):  # the same figure is the same file
        for ending, metadata in (("png", {}), ("svg", {"Date": None})):
            buffer = io.BytesIO()
            made.savefig(buffer, format=ending, metadata=metadata, bbox_inches="tight", pad_inches=0.06)
            paths.append(_keep(folder / f"{name}.{ending}", buffer.getvalue()))
    if rows:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        paths.append(_keep(folder / f"{name}.csv", text.getvalue().encode()))
    if about is not None:
        paths.append(_keep(folder / f"{name}.json", (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode()))
    return paths


def _keep(path: Path, data: bytes) -> Path:
    disk.keep(path, data)
    return path
