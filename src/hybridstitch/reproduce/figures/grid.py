"""Figure 4: the pictures themselves, a row a prompt and a column a method, the first prompts of the reproduction.

Below each picture stands its PSNR to the large model's; above each column how much faster its method is and its
distance to real pictures. Nothing is picked by hand.
"""

import textwrap
from pathlib import Path

from PIL import Image

from ...batch.crew import Crew
from ...evaluate.closeness import CEILING
from ...report.colours import INK, QUIET
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
    across = 1.62
    tall = across * cells[0][1][0][0].height / cells[0][1][0][0].width
    prompt, words, head = 0.24, 0.2, 0.66  # inches above and below a picture, and above all
    width, height = across * len(columns) + 0.1, head + len(cells) * (prompt + tall + words)
    figure = style.figure(width, height)
    figure.set_layout_engine("none")
    for place, (name, below) in enumerate(columns):
        x = (0.05 + across * (place + 0.5)) / width
        figure.text(
            x, 1 - 0.06 / height, style.label(name), ha="center", va="top", fontsize=10, weight="bold",
            color=INK,
        )  # fmt: skip
        figure.text(x, 1 - 0.26 / height, below, ha="center", va="top", fontsize=8, color=QUIET, linespacing=1.25)
        figure.add_artist(_bar(place, across, width, height, style.colour(name), head))
    for row, (text, line) in enumerate(cells):
        top = head + row * (prompt + tall + words)
        said = textwrap.shorten(text, 130, placeholder=" …")
        figure.text(0.08 / width, 1 - (top + 0.07) / height, said, fontsize=9, style="italic", color=INK, va="top")
        for place, (picture, below) in enumerate(line):
            left, upper = 0.05 + across * place + 0.03, top + prompt
            axes = figure.add_axes(
                (left / width, 1 - (upper + tall - 0.04) / height, (across - 0.06) / width, (tall - 0.06) / height)
            )
            axes.imshow(picture, aspect="auto", interpolation="lanczos")
            axes.axis("off")
            figure.text(
                (left + (across - 0.06) / 2) / width, 1 - (upper + tall) / height, below, ha="center", va="top",
                fontsize=8, color=QUIET,
            )  # fmt: skip
    return style.save(figure, folder, "fig4", rows)


def _bar(place: int, across: float, width: float, height: float, colour: str, head: float):  # noqa: ANN202
    """A line of a method's colour below its column's head."""
    from matplotlib.lines import Line2D

    left, y = (0.05 + across * place + 0.05) / width, 1 - (head - 0.02) / height
    return Line2D([left, left + (across - 0.1) / width], [y, y], color=colour, linewidth=3)
