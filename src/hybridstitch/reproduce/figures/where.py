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
    cells, rows = [], []
    for image, difference in enumerate(differences):
        line = [(difference.picture, "")]
        for step in map(int, difference.steps):
            mask, share = largest(difference.tokens[step - 1], TOP)
            line.append((through(difference.picture, mask), f"{style.percent(share)} of the difference"))
            rows.append(
                {
                    "image": image,
                    "prompt": difference.prompt,
                    "step": step,
                    "top": TOP,
                    "share": f"{share:.4f}",
                    "tokens": " ".join(map(str, np.flatnonzero(mask))),
                }
            )
        cells.append((difference.prompt, line))
    heads = (f"top {style.percent(TOP)}, step {step}" for step in differences[0].steps)
    figure, _ = style.pictures(cells, ["the large model's picture", *heads])
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
