"""`hybridstitch calibrate --memory`: how near a prompt must be to a picture drawn before; written into the recipe."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..drawing.engine import Engine
from . import say
from .asked import Asked, BadInput
from .served import brought, measuring

if TYPE_CHECKING:
    from ..recipe import Recipe


def calibrate_memory(
    out: Path,
    texts: tuple[str, ...] | None,
    *,
    pair: str | None,
    small: str | None,
    clip: str | None,
    seed: int,
    device: str | None,
    dtype: str | None,
    engine: Engine,
    bar: Any,
    as_json: bool,
) -> None:
    """Measure, and write the recipe again with what was found.

    Args:
        out: the recipe, or where that of the miniature pair is written to.
        texts: prompts, or None for ours.
        pair, small: the pair, None for the recipe's.
        clip: the CLIP, None for the pair's default.
        seed: of the noise.
        device, dtype, engine: how the models are run.
        bar: shows progress.
        as_json: print JSON.

    Raises:
        BadInput: there is no recipe, or it does not name its pair.
        HybridStitchError: as opening and drawing.
    """
    from ..recipe import Recipe

    recipe = Recipe.load(out) if out.exists() else brought(pair)
    if recipe is None:
        raise BadInput(
            f"--memory adds to a recipe, and there is none at {out}; {measuring(pair, small, out=out)} writes it"
        )
    home = recipe.home
    if pair is None and home.pair is None:
        raise BadInput("the recipe does not name its pair; name it: --pair LARGE SMALL")
    asked = Asked.of(
        prompts=texts or ("a prompt",), pair=pair or home.pair, small=small if pair else home.small, policy="large",
        steps=home.steps, guidance=home.guidance, seed=seed, size=f"{home.width}x{home.height}", device=device,
        dtype=dtype,
    )  # fmt: skip
    say.hush()
    from ..calibrate.conditions import conditions_of
    from ..calibrate.recalling import recall_of
    from ..evaluate.clips import default_clip, open_clip
    from ..opening import check_recipe
    from ..policies.methods import LargeOnly
    from .pairs import Pair

    named = Pair.of(asked.pair, asked.small)
    named.check_text({f"prompt {place}": text for place, text in enumerate(texts or (), start=1)})
    name = clip or default_clip(named.mini)
    with bar:
        task = bar.add_task("opening the pair", total=1.0)
        tower = open_clip(name, asked.device)
        pipe = named.open(LargeOnly(), device=asked.device, dtype=asked.dtype, engine=engine)
        check_recipe(pipe, recipe)
        found = recall_of(
            pipe, tower, name, texts, seed=seed,
            conditions=conditions_of(
                pipe, (home.width, home.height), home.frames, steps=home.steps, guidance=home.guidance
            ),
            on_progress=lambda share, doing: bar.update(task, completed=share, description=doing),
        )  # fmt: skip
    recipe = replace(recipe, recall=found)
    recipe.save(out)
    if as_json:
        print(json.dumps({"recipe": str(out), **found.to_json()}))
    else:
        _tell(recipe, out)


def _tell(recipe: "Recipe", out: Path) -> None:
    """What was found, for people."""
    assert recipe.recall is not None
    console = say.out()
    for band in reversed(recipe.recall.bands):
        console.print(
            f"from {band.similarity:.3f} on: begin with step {band.step} of {recipe.home.steps} "
            f"({100 * band.kept:.0f} % of the large model's CLIP score, {band.pairs} pictures)"
        )
    if not recipe.recall.bands:
        console.print(
            "no earlier picture keeps 95 % of the large model's CLIP score, so `serve --remember` would not reuse any"
        )
    console.print(f"recipe: {out}")
    console.print(f"serve by it: hybridstitch serve --recipe {out} --remember DIR")
