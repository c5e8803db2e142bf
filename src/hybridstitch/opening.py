"""`stitch`, `unstitch` and `open_pair`, which also take a speed, closeness or recipe in place of a policy.

    stitch(pipe, small=…, speed=1.8)              measures the pair first (minutes), then serves the request
    open_pair(recipe="recipe.json", speed=1.8)    serves it from what was measured

A request decides the policy, the step count, guidance and size; the last three have to be given to the pipeline's call:

    pipe(prompt, **pipe.transformer.call)

and a call with other numbers warns. `pair` does the rest.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

from .calibrate.calibrate import GUIDANCE, STEPS, calibrate
from .calibrate.conditions import Conditions, home_of
from .compat import ModelMixin
from .drawing.engine import PLAIN, Engine
from .drawing.guard import Guard
from .errors import StitchWarning
from .pair import stitching as pair
from .pair.stitching import DEFAULT, unstitch
from .policies.methods import LargeOnly
from .policies.policy import Policy
from .policies.presets import Preset, as_preset
from .recipe import Point, Recipe, RecipeError, check_request


def stitch(
    pipe: DiffusionPipeline,
    small: ModelMixin | DiffusionPipeline | str | Path,
    policy: Policy | Preset | str = DEFAULT,
    engine: Engine = PLAIN,
    *,
    speed: float | None = None,
    closeness: float | None = None,
    recipe: Recipe | str | Path | None = None,
    prompts: Sequence[str] | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    size: tuple[int, int] | None = None,
    frames: int | None = None,
    guard: bool = False,
    **options: Any,
) -> None:
    """Let two models draw in a pipeline, from the next call on.

    Args:
        pipe: a diffusers pipeline with a `transformer`; it stays the same object.
        small: the small model: a transformer, a pipeline, a hub id, or a folder of either.
        policy: which model draws what, or its text (`"L10 S40"`, `"hybridstitch-30"`); default `HybridStitch()`.
        engine: how the models are run; default: as they are.
        speed: instead of a policy: how many times as fast as the large model, see `recipe.Recipe`.
        closeness: instead of a policy: how close to the large model's picture, 0 to 1.
        recipe: what `calibrate` found, or its file; without one a request calibrates now, which takes minutes.
        prompts: of that calibration: 4 to 16, of the kind that will be drawn; default: eight built-in ones.
        steps: of the large model's picture that everything is compared with; default 50.
        guidance: guidance scale; default 4.
        size: width and height in pixels; default: the pipeline's own.
        frames: of a video; default: the pipeline's own.
        guard: let the large model draw steps that come out broken or unlike those of the calibration.
        options: for `from_pretrained`, where `small` is loaded.

    Raises:
        HybridStitchError: the models do not fit together, the pipeline is not supported, the policy, engine or recipe
            cannot be used, or the request cannot be served; says why, and what would work. The pipeline is then as it
            was.
    """
    decided = None if policy is DEFAULT else policy
    asked = _asked(
        decided, speed, closeness, recipe, prompts=prompts, steps=steps, guidance=guidance, size=size, frames=frames
    )
    if not asked:
        pair.stitch(pipe, small, policy, engine, **options)
        pipe.transformer.guard = Guard() if guard else None
        return
    found = _loaded(recipe)
    if found is not None:
        found.at(speed=speed, closeness=closeness)  # refused before anything is loaded
    pair.stitch(pipe, small, LargeOnly(), engine, **options)
    try:
        found = found or _calibrated(pipe, asked)
        pipe.transformer.guard = Guard() if guard else None
        follow_recipe(pipe, found, speed=speed, closeness=closeness)
    except BaseException:
        unstitch(pipe)
        raise


def open_pair(
    large: str | Path | None = None,
    small: str | Path | ModelMixin | DiffusionPipeline | None = None,
    policy: Policy | Preset | str | None = None,
    engine: Engine = PLAIN,
    *,
    speed: float | None = None,
    closeness: float | None = None,
    recipe: Recipe | str | Path | None = None,
    prompts: Sequence[str] | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    size: tuple[int, int] | None = None,
    frames: int | None = None,
    guard: bool = False,
    **options: Any,
) -> Any:
    """Load a pipeline and stitch it.

    Args:
        large: hub id or folder of the large pipeline; a folder that a stitched pipeline was saved to; or "mini". Not
            needed with a recipe that names its pair.
        small: as in `stitch`; not given for a saved pair or "mini".
        policy: which model draws what; default: the saved pair's, or `HybridStitch()`.
        engine: as in `stitch`.
        speed: as in `stitch`; the miniature pair comes with a recipe, and calibrates only where prompts, steps,
            guidance or size are given.
        closeness: as in `stitch`.
        recipe: as in `stitch`.
        prompts: as in `stitch`.
        steps: as in `stitch`.
        guidance: as in `stitch`.
        size: as in `stitch`.
        frames: as in `stitch`.
        guard: as in `stitch`.
        options: for `from_pretrained` (dtype, device_map, revision, token, …), the small model included.

    Returns:
        the stitched pipeline.

    Raises:
        HybridStitchError: as `stitch`.
    """
    asked = _asked(
        policy, speed, closeness, recipe, prompts=prompts, steps=steps, guidance=guidance, size=size, frames=frames
    )
    found = _loaded(recipe)
    if found is None and str(large) == "mini" and asked.keys() == {"speed", "closeness", "recipe"}:
        from .mini import recipe_file

        found = _loaded(recipe_file())
    if found is not None:
        found.at(speed=speed, closeness=closeness)
        large, small = (found.home.pair, found.home.small) if large is None else (large, small)
    if large is None:
        raise RecipeError(
            "no pair was named; open_pair('mini'), open_pair(LARGE, SMALL), or open_pair(recipe=…) of a recipe that "
            "names its pair"
        )
    begins = LargeOnly() if asked else policy  # until the request is served: what every pair can draw
    pipe: Any
    if str(large) == "mini":
        from .mini.opened import open_mini

        if "device_map" in options:  # as other pairs take it
            options["device"] = options.pop("device_map")
        pipe = open_mini(begins, engine=engine, **options)
    else:
        pipe = pair.open_pair(large, small, begins, engine, **options)
    if asked:
        found = found or _calibrated(pipe, asked)
    pipe.transformer.guard = Guard() if guard else None
    if found is not None:
        follow_recipe(pipe, found, speed=speed, closeness=closeness)
    return pipe


def follow_recipe(
    pipe: DiffusionPipeline, recipe: Recipe, *, speed: float | None = None, closeness: float | None = None
) -> Point:
    """Draw by a recipe from the next call on; `pipe.transformer.call` has its step count, guidance and size.

    A guard is held to the ranges of its distances.

    Args:
        pipe: a stitched pipeline.
        recipe: of this pair.
        speed, closeness: see `Recipe.at`.

    Returns:
        what serves the request.

    Raises:
        RecipeError: a recipe of another pair, or a request that it cannot serve.
    """
    check_recipe(pipe, recipe)
    point = recipe.at(speed=speed, closeness=closeness)
    stitched = pipe.transformer
    stitched.policy = recipe.preset(point)
    if stitched.guard is not None:
        stitched.guard = replace(stitched.guard, bands=point.distances)
    return point


def check_recipe(pipe: DiffusionPipeline, recipe: Recipe) -> None:
    """Refuse a recipe of another pair, and warn of one that was measured elsewhere.

    Args:
        pipe: a stitched pipeline.
        recipe: to draw by.

    Raises:
        RecipeError: the recipe is of another pair.
    """
    home = recipe.home
    conditions = Conditions(
        width=home.width, height=home.height, frames=home.frames, steps=home.steps, guidance=home.guidance
    )
    now = home_of(pipe, conditions, home.models)
    if now.parameters != home.parameters:
        theirs, ours = (" and ".join(f"{n / 1e6:,.1f} M" for n in of.parameters) for of in (home, now))
        raise RecipeError(
            f"this recipe is of another pair: its models have {theirs} parameters, these {ours}; calibrate this pair: "
            f"`{now.command} --out recipe.json`"
        )
    apart = home.differences(now)
    if apart:
        again = now if now.pair is not None else replace(now, pair=home.pair, small=home.small)
        _warn(f"outside what the recipe was measured in: {'; '.join(apart)}; measure again: `{again.command}`")


def _asked(
    policy: Policy | Preset | str | None,
    speed: float | None,
    closeness: float | None,
    recipe: Recipe | str | Path | None,
    **calibration: Any,
) -> dict[str, Any]:
    """What calibrating now would take, empty where a policy decides.

    Raises:
        RecipeError: arguments that exclude each other.
    """
    requests = {"speed": speed, "closeness": closeness, "recipe": recipe}
    named = [name for name, value in requests.items() if value is not None]
    given = {name: value for name, value in calibration.items() if value is not None}
    if policy is not None and named:
        raise RecipeError(
            f"policy={as_preset(policy).name!r} and {named[0]}={str(requests[named[0]])!r} were given; each "
            "determines the other: give one of the two"
        )
    check_request(speed=speed, closeness=closeness)
    if given and (not named or recipe is not None):
        reason = "the recipe has its own" if named else "they belong to speed=… and closeness=…"
        raise RecipeError(f"{', '.join(given)} given, but nothing is calibrated here ({reason}); leave that out")
    return {**requests, **given} if named else {}


def _loaded(recipe: Recipe | str | Path | None) -> Recipe | None:
    return Recipe.load(recipe) if isinstance(recipe, str | Path) else recipe


def _calibrated(pipe: Any, asked: dict[str, Any]) -> Recipe:
    """Calibrate now, with the bar a pipeline has."""
    setting = {"steps": STEPS, "guidance": GUIDANCE, "prompts": None, **asked}
    del setting["recipe"]
    with pipe.progress_bar(total=100) as bar:

        def on_progress(share: float, doing: str) -> None:
            bar.set_description(f"calibrating: {doing}")
            bar.update(round(100 * share) - bar.n)

        found = calibrate(pipe, on_progress=on_progress, **setting)
    point = found.at()
    if point.kind != "region mask":
        _warn(f"{point.name} serves this request better than any plan with masks: {found.verdict[0]}")
    return found


def _warn(text: str) -> None:
    warnings.warn(text, StitchWarning, stacklevel=3)
