"""A recipe: what calibration found for one pair in one setting on one machine, as a small JSON file.

    recipe = Recipe.load("recipe.json")
    recipe.at(speed=1.8)         of the policies 1.8 times as fast, the one closest to the large model's picture
    recipe.at(closeness=0.95)    of the policies at least this close, the fastest

*Speed* is end to end, against the large model alone at the recipe's step count (see `measure.price`). *Closeness* is
the structural similarity (SSIM) to that model's picture of the same prompt and seed, 1 for equal pictures, mean over
prompts. A point's step count and noise levels are part of it: fewer steps of the large model are points like any other.
"""

from .file import Recipe, RecipeError, check_request
from .home import Home
from .point import Point, Trial, kind_of
from .recall import Band, Recall

__all__ = ["Band", "Home", "Point", "Recall", "Recipe", "RecipeError", "Trial", "check_request", "kind_of"]
