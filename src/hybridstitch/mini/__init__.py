"""The miniature pair: a Stable Diffusion 3 family that draws on a laptop, the world it was trained on,
and the recipe.

`weights_dir()` is a stock diffusers pipeline folder with the large transformer; `small/` inside it holds
the small one and `clip/` the picture tower of the miniature CLIP. Importing this package loads neither
torch nor any weight.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = "HYBRIDSTITCH_MINI"  # environment variable: another folder of weights, to try freshly trained ones


def weights_dir() -> Path:
    """The folder with the shipped weights."""
    return Path(__file__).parent / "weights"


def mini_folder() -> Path:
    """The folder the miniature pair is read from: the shipped weights, or what HYBRIDSTITCH_MINI names."""
    return Path(os.environ.get(FOLDER) or weights_dir())


def recipe_file() -> Path | None:
    """What calibration found for the shipped weights, on the machine that it names; None for other weights."""
    return Path(__file__).with_name("recipe.json") if mini_folder() == weights_dir() else None
