"""The pictures of a folder and raw.csv, their rows.

Pictures go to the disk whole or not at all, and a row to raw.csv after its picture, so that a kill loses at most what
was on its way. A resumed folder keeps the rows whose pictures still have the pixels that were drawn.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..evaluate.pictures import read
from ..report.metadata import pixel_digest
from ..report.picture import write
from . import lines
from .lines import CsvRow
from .methods import Method
from .settings import COLUMNS, Settings

DIGITS = 16  # of a picture's digest
Rows = dict[tuple[str, int], CsvRow]  # by method and image


def row_of(
    settings: Settings, method: Method, image: int, steps: int, picture: Image.Image, values: Mapping[str, str]
) -> CsvRow:
    """A row of raw.csv, scores left empty.

    Args:
        settings: of the folder.
        method: the row's.
        image: which prompt.
        steps: T.
        picture: as drawn.
        values: its policy, switches and cost.
    """
    all_values: dict[str, Any] = {
        "method": method.name,
        "image": image,
        "prompt": settings.prompts[image],
        "seed": settings.seed + image,
        "steps": steps,
        "pixels": pixel_digest(picture)[:DIGITS],
        **values,
    }
    return {name: str(all_values.get(name, "")) for name in COLUMNS}


def keep(path: Path, picture: Image.Image) -> None:
    """Write a PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write(picture, path)


def read_rows(settings: Settings) -> Rows:
    """The rows of raw.csv by (method, image); a line that a kill cut off is left out, the last of twins counts."""
    try:
        text = settings.raw.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    rows: Rows = {}
    for row in csv.DictReader(io.StringIO(text, newline="")):
        whole = None not in row and None not in row.values() and str(row.get("image", "")).isdigit()
        if whole and len(str(row.get("pixels"))) == DIGITS:
            rows[row["method"], int(row["image"])] = {name: row.get(name) or "" for name in COLUMNS}
    return rows


def kept(settings: Settings, rows: Rows, names: Iterable[str]) -> tuple[Rows, list[str]]:
    """The rows of wanted pictures that are still there as drawn, and what is wrong with the others.

    Args:
        settings: the folder and n.
        rows: of raw.csv.
        names: of the methods wanted.
    """
    wanted, good, wrong = set(names), {}, []
    for (name, image), row in rows.items():
        if name not in wanted or image >= settings.n:
            good[name, image] = row  # not asked for now: stays as it is
            continue
        path = settings.picture(name, image)
        found = digest(path)
        if found == row["pixels"]:
            good[name, image] = row
        else:
            wrong.append(f"{path} {'is gone' if found is None else 'is not what was drawn'}; it is drawn again")
    return good, wrong


def digest(path: Any) -> str | None:
    """Of a picture's pixels; None without a file, "" for a damaged one."""
    try:
        with Image.open(path) as image:
            return pixel_digest(image)[:DIGITS]
    except FileNotFoundError:
        return None
    except (OSError, SyntaxError, ValueError):  # Pillow's words for a broken PNG
        return ""


def write_rows(settings: Settings, rows: Rows) -> None:
    """Write raw.csv anew, whole or not at all; in the order of methods and images."""
    lines.write(settings.raw, COLUMNS, rows.values())


def append_rows(settings: Settings, rows: Sequence[CsvRow]) -> None:
    """Add rows to raw.csv and wait until they are on the disk."""
    lines.append(settings.raw, COLUMNS, rows)


def pictures_of(settings: Settings, name: str) -> list[np.ndarray]:
    """A method's pictures of all n prompts, (H, W, 3) uint8 each."""
    return [read(settings.picture(name, image)) for image in range(settings.n)]
