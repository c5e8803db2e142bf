"""Figure 1b: where the two models differ, beside the picture.

The picture is seen through the 40 % of the tokens on which the two predictions differ most, at three steps of the large
model's way; the number is the share of ‖v_L − v_S‖² that lies there (an even spread would put 40 % there).
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...batch.crew import Crew
from ...policies.plan import Region
from ...report.colours import INK, QUIET, RULE
from ..equipment import Equipment
from ..results import Results
from . import style
from .differences import Difference, measured

SHOWN = 3  # prompts
TOP = 0.4


def draw(results: Results, crew: Crew[Equipment]) -> list[Path]:
    """Measure what is not there yet, and write fig1b."""
    return plot(measured(crew)[:SHOWN], results.settings.figures)


def plot(differences: list[Difference], folder: Path) -> list[Path]:
    """A row a prompt: the picture, and what of it the top tokens show at each step.

    Args:
        differences: of the prompts shown.
        folder: where fig1b goes.
    """
    steps = differences[0].steps
    height, width = differences[0].picture.shape[:2]
    across, words, head, gap = 1.75, 1.5, 0.32, 0.07  # inches
    tall, below = across * height / width, 0.22
    size = (words + (1 + len(steps)) * (across + gap), head + len(differences) * (tall + below))
    figure = style.figure(*size)
    figure.set_layout_engine("none")
    heads = ["the large model's picture", *(f"top {style.percent(TOP)}, step {step}" for step in steps)]
    for column, text in enumerate(heads):
        x = (words + column * (across + gap) + across / 2) / size[0]
        figure.text(x, 1 - 0.09 / size[1], text, ha="center", va="top", fontsize=9.5, color=INK)
    rows = []
    for row, difference in enumerate(differences):
        top = head + row * (tall + below)
        said = style.folded(difference.prompt, 19, 7)
        figure.text(
            (words - 0.1) / size[0], 1 - (top + tall / 2) / size[1], said, ha="right", va="center", fontsize=8.5,
            style="italic", color=INK,
        )  # fmt: skip
        for column in range(1 + len(steps)):
            left = words + column * (across + gap)
            place = (left / size[0], 1 - (top + tall) / size[1], across / size[0], tall / size[1])
            axes = figure.add_axes(place)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color(RULE)
            if column == 0:
                axes.imshow(difference.picture, aspect="auto", interpolation="lanczos")
                continue
            step = int(steps[column - 1])
            mask, share = largest(difference.tokens[step - 1], TOP)
            axes.imshow(through(difference.picture, mask), aspect="auto", interpolation="lanczos")
            axes.set_xlabel(f"{style.percent(share)} of the difference", fontsize=8, color=QUIET, labelpad=2)
            rows.append(
                {
                    "image": row,
                    "prompt": difference.prompt,
                    "step": step,
                    "top": TOP,
                    "share": f"{share:.4f}",
                    "tokens": " ".join(map(str, np.flatnonzero(mask))),
                }
            )
    return style.save(figure, folder, "fig1b", rows)


def through(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A picture seen through a mask: black where it is False.

    Args:
        picture: (H, W, 3).
        mask: (rows, columns), of tokens.
    """
    height, width = picture.shape[:2]
    window = Image.fromarray(mask.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
    return picture * np.asarray(window)[..., None]


def largest(tokens: NDArray[np.float32], ratio: float) -> tuple[NDArray[np.bool_], float]:
    """The share `ratio` of the tokens with the largest values, and their share of the sum.

    Args:
        tokens: (rows, columns).
        ratio: M.

    Returns:
        (rows, columns), and a number from 0 to 1.
    """
    count = Region(ratio).count(tokens.size)
    order = np.argsort(-tokens.ravel(), kind="stable")[:count]
    mask = np.zeros(tokens.size, dtype=bool)
    mask[order] = True
    return mask.reshape(tokens.shape), float(tokens.ravel()[order].sum() / tokens.sum())
