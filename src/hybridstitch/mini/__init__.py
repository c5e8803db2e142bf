"""The miniature pair: a Stable Diffusion 3 family that draws on a laptop, the world it was trained on,
and the recipe.

`weights_dir()` is a stock diffusers pipeline folder with the large transformer; `small/` inside it holds
the small one and `clip/` the picture tower of the miniature CLIP. Importing this package loads neither
torch nor any weight.
"""

from __future__ import annotations

from pathlib import Path


def weights_dir() -> Path:
    """The folder with the shipped weights."""
    return Path(__file__).parent / "weights"
