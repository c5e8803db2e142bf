"""Every row's picture of a prompt, each distinct step drawn once.

Rows with policies of their own go first; rows that take stages or time of others follow from their traces. Pictures go
to the disk whole or not at all, and a row to raw.csv after its picture, so that a kill loses at most what was on its
way. A resumed folder keeps the rows whose pictures still have the pixels that were drawn.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..measure.lockstep import Drawn, decode, draw_together, prepare
from ..measure.price import Prices
from ..policies.methods import Replay
from ..policies.policy import Policy
from ..report.picture import pixel_digest, write
from . import caches, lines
from .methods import Method, resolve
from .prices import dense
from .settings import COLUMNS, Settings
from .studio import Studio

DIGITS = 16  # of a picture's digest
Row = dict[str, str]
Rows = dict[tuple[str, int], Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to draw of one prompt.

    Attributes:
        image: which prompt.
        methods: those wanted and those they take something of.
        missing: names of the rows to write.
        prices: of strokes.
    """

    image: int
    methods: tuple[Method, ...]
    missing: frozenset[str]
    prices: Prices


def draw_image(studio: Studio, task: Task) -> list[Row]:
    """Draw and keep the missing pictures of a prompt.

    Returns:
        their rows, without scores.

    Raises:
        OSError: a picture could not be written.
        HybridStitchError: a policy could not be carried out.
    """
    settings = studio.settings
    bases = {m.of for m in task.methods if m.name in task.missing}
    own = [m for m in task.methods if m.policy is not None and (m.name in task.missing or m.name in bases)]
    plans = {m.name: resolve(m, task.image, {}, task.prices) for m in own}
    drawn = _draw(studio, task.image, plans)
    traces = {name: d.trace for name, d in drawn.items()}
    takers = [m for m in task.methods if m.of is not None and m.name in task.missing]
    later = {m.name: resolve(m, task.image, traces, task.prices) for m in takers}
    drawn |= _draw(studio, task.image, later)
    plans |= later
    rows, decoded = [], {}
    for method in task.methods:
        if method.name not in task.missing:
            continue
        if method.take == "cache-dit":
            cached = caches.call(studio.pipe, settings, image=task.image, steps=method.steps)
            keep(settings.picture(method.name, task.image), cached.image)
            values = {"policy": "cache-dit", "cost": f"{cached.dense_steps:.4f}"}
            rows.append(row_of(settings, method, task.image, method.steps, cached.image, values))
            continue
        what = drawn[method.name]
        if id(what.latent) not in decoded:
            decoded[id(what.latent)] = Image.fromarray(decode(studio.pipe, what.latent))
        picture = decoded[id(what.latent)]
        keep(settings.picture(method.name, task.image), picture)
        steps, policy = plans[method.name]
        values = {
            "policy": f"{method.take} of {method.of}" if isinstance(policy, Replay) else str(policy),
            "switches": "/".join(map(str, what.trace.switches(0))),
            "cost": f"{dense(task.prices, what.trace.plans()[0]):.4f}",
        }
        rows.append(row_of(settings, method, task.image, steps, picture, values))
    return rows


def _draw(studio: Studio, image: int, plans: Mapping[str, tuple[int, Policy]]) -> dict[str, Drawn]:
    """Policies by name, those of one step count together."""
    settings = studio.settings
    by_steps: dict[int, dict[str, Policy]] = {}
    for name, (steps, policy) in plans.items():
        by_steps.setdefault(steps, {})[name] = policy
    drawn: dict[str, Drawn] = {}
    for steps, policies in by_steps.items():
        start = prepare(
            studio.pipe, settings.prompts[image], steps=steps, guidance=settings.guidance,
            seed=settings.seed + image, width=settings.size[0], height=settings.size[1],
        )  # fmt: skip
        drawn |= draw_together(studio.pipe, start, policies)
    return drawn


def row_of(
    settings: Settings, method: Method, image: int, steps: int, picture: Image.Image, values: Mapping[str, str]
) -> Row:
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


# --- raw.csv ---


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


def append_rows(settings: Settings, rows: Sequence[Row]) -> None:
    """Add rows to raw.csv and wait until they are on the disk."""
    lines.append(settings.raw, COLUMNS, rows)


def pictures_of(settings: Settings, name: str) -> list[np.ndarray]:
    """A method's pictures of all n prompts, (H, W, 3) uint8 each."""
    from ..evaluate.pictures import read

    return [read(settings.picture(name, image)) for image in range(settings.n)]
