"""Figure 4: the pictures themselves, a row a prompt and a column a method, the first prompts of the reproduction.

Below each picture stands its PSNR to the large model's; above each column how much faster its method is and its
distance to real pictures. Nothing is picked by hand.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from ...batch.crew import Crew
from ...evaluate.closeness import CEILING
from ...report.colours import INK
from ..equipment import Equipment
from ..results import Results
from ..scoring import named
from . import style

METHODS = (
    "large",
    "t-stitch",
    "sr-diffusion",
    "hybridstitch-10",
    "hybridstitch-20",
    "hybridstitch-30",
    "hybridstitch-40",
)
PROMPTS = 5
PIXELS = 320  # at most, each way, of a picture in the figure


def draw(results: Results, crew: Crew[Equipment]) -> list[Path]:
    """Write fig4 from the folder's pictures."""
    settings = results.settings
    shown = [name for name in (METHODS[0], "small", *METHODS[1:]) if results.of(name)]
    cells, rows = [], []
    for image in range(min(PROMPTS, settings.n)):
        line = []
        for name in shown:
            path = settings.picture(name, image)
            psnr = results.of(name)[image]["psnr"]
            with Image.open(path) as picture:
                picture = picture.convert("RGB")
                picture.thumbnail((PIXELS, PIXELS), Image.Resampling.LANCZOS)
            line.append((picture, "" if name == "large" or not psnr else decibels(float(psnr))))
            rows.append(
                {
                    "image": image,
                    "prompt": settings.prompts[image],
                    "method": name,
                    "psnr": psnr,
                    "file": path.relative_to(settings.out).as_posix(),
                }
            )
        cells.append((settings.prompts[image], line))
    return plot(cells, [(name, heading(results, name)) for name in shown], rows, settings.figures)


def heading(results: Results, name: str) -> str:
    """Below a method's name: how much faster, and how far from real pictures."""
    fast = results.speedup(name)
    about = "" if fast is not None else "≈ "
    if fast is None:
        fast = results.dense("large") / results.dense(name)
    distance = named(results.scores.get(name, {}), "kid")
    return f"{about}{fast:.2f}× as fast" + (f"\n{distance.metric} {distance.value:.3f}" if distance else "")


def decibels(psnr: float) -> str:
    """A PSNR in words; at the ceiling the pictures are equal."""
    return "identical" if psnr >= CEILING else f"{psnr:.1f} dB"


def plot(
    cells: list[tuple[str, list[tuple[Image.Image, str]]]],
    columns: list[tuple[str, str]],
    rows: list[dict[str, object]],
    folder: Path,
) -> list[Path]:
    """The grid.

    Args:
        cells: per prompt its pictures with the words below each.
        columns: methods with what stands below their names.
        rows: the data.
        folder: where fig4 goes.
    """
    sheet = [(prompt, [(np.asarray(picture), below) for picture, below in line]) for prompt, line in cells]
    figure, first = style.pictures(sheet, [below for _, below in columns])
    for axes, (name, _) in zip(first, columns, strict=True):
        line = axes.spines["top"]
        line.set(color=style.colour(name), linewidth=3, capstyle="butt", position=("outward", 3))
        axes.annotate(
            style.label(name), (0.5, 1), xycoords=axes.title, xytext=(0, 3), textcoords="offset points",
            ha="center", fontsize=9.5, weight="bold", color=INK,
        )  # fmt: skip
    return style.save(figure, folder, "fig4", rows)
