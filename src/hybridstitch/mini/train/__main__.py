"""`python -m hybridstitch.mini.train STAGE --work DIR`: the miniature pair from nothing to weights, stage
by stage.

Stages: clip, vae, pool (encodes training scenes), large, small, export; `all` runs them in order. Each
goes on from where a kill left it. `--from-weights` starts from the shipped weights instead of from
nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch

from .loop import TrainingRecipe
from .stages import RECIPES, STAGES, Workshop


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m hybridstitch.mini.train", description=__doc__)
    parser.add_argument("stage", choices=[*STAGES, "all"])
    parser.add_argument(
        "--work", type=Path, default=Path.home() / ".cache/hybridstitch/mini", help="folder for all of it"
    )
    parser.add_argument("--images", type=int, help="images (or, for pool, scenes) to go through")
    parser.add_argument("--minutes", type=float, help="training time instead of --images")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--matrix-rate", type=float, help="peak rate of Muon")
    parser.add_argument("--look-seconds", type=float, help="seconds between two sample sheets")
    parser.add_argument("--from-weights", action="store_true", help="start from the shipped weights")
    parser.add_argument(
        "--follow-large", action="store_true", help="the small model learns the large one's velocity, not the pictures"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile the transformer's blocks")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def main() -> None:
    """Run the stage, or all of them."""
    args = arguments()
    shop = Workshop(args.work, torch.device(args.device), args.from_weights, args.compile, args.follow_large)
    names = ("images", "minutes", "batch", "matrix_rate", "look_seconds")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    for stage in STAGES if args.stage == "all" else (args.stage,):
        recipe = dataclasses.replace(RECIPES.get(stage, TrainingRecipe()), **given)
        print(f"{stage}: {recipe}", flush=True)
        STAGES[stage](shop, recipe)


if __name__ == "__main__":
    main()
