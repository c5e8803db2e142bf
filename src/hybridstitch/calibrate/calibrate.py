"""`calibrate`: from a stitched pair and some prompts to a recipe."""

from collections.abc import Sequence
from dataclasses import asdict
from math import inf
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from ..families.known import shape_of
from ..measure.price import Prices, fixed_plans
from ..measure.start import seat_of
from ..measure.timing import RATIOS, UNGUIDED, hybrid, masked, measure
from ..pair.stitched import StitchedTransformer
from ..policies.methods import SmallOnly
from ..policies.policy import Policy
from ..recipe import Point, Recipe, RecipeError, Trial, check_request
from .board import Board, CrewOf, OnProgress
from .compare import Comparer
from .conditions import Conditions, conditions_of, digest, draws, home_of
from .prompts import PROMPTS
from .search import Search
from .state import state_of
from .table import Standing
from .timekeeper import PRICES
from .verdict import verdict
from .winners import TURNS, measured_speed, time_winners, turns_of

STEPS, GUIDANCE = 50, 4.0
FEWEST, MOST = 4, 16  # prompts
DEFAULT_PROMPTS = 8
MINUTES, REQUESTED = 6.0, 2.0  # of a search of all speeds, and of one for a request
ROUNDS = 5  # of pictures that tell what strokes, steps and pictures cost


def calibrate(
    pipe: Any,
    prompts: Sequence[str] | None = None,
    *,
    speed: float | None = None,
    closeness: float | None = None,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    size: tuple[int, int] | None = None,
    frames: int | None = None,
    seed: int = 0,
    minutes: float | None = None,
    prices: Prices | None = None,
    state: Path | None = None,
    on_progress: OnProgress = lambda share, doing: None,
    crew_of: CrewOf | None = None,
) -> Recipe:
    """Find out what a pair is good for: which policies at which step counts are fastest for how close a picture.

    Args:
        pipe: a stitched pipeline; its policy is left as it is.
        prompts: 4 to 16 of what will be drawn; a quarter is kept back to check the winners. Default: eight of the
            miniature world for the miniature pair, else eight everyday ones.
        speed: search for this speed only (see `recipe`), above 1.
        closeness: search for this closeness only, above 0 and at most 1.
        steps: T of the reference, at least 3.
        guidance: the guidance scale; 1 for none.
        size: width and height in pixels; None is the pair's own.
        frames: of a video; None is the pair's own.
        seed: of the noise of the first prompt; each prompt has the next.
        minutes: how long it may take; what every search begins with, and the check of its best, are done in any case.
            Default: 6 for all speeds, 2 for a request.
        prices: of this machine, of an earlier recipe; None measures them.
        state: a file that holds what was done, so that a calibration that was killed goes on; None keeps nothing. One
            that holds another calibration is put beside, for when that goes on.
        on_progress: told the share of the work that is done, and what is being done.
        crew_of: who draws beside this process, which times; None is this machine.

    Raises:
        RecipeError: a request that cannot be meant or reached, too few or too many prompts.
        BusyError: another calibration works in the folder of `state`.
        HybridStitchError: as the pipeline's own calls.
    """
    prompts = tuple(default_prompts(pipe) if prompts is None else prompts)
    _check(pipe, prompts, steps, speed, closeness)
    if minutes is None:
        minutes = MINUTES if speed is None and closeness is None else REQUESTED
    if not 0 <= minutes < inf:
        raise RecipeError(f"minutes={minutes:g} was given; a search takes 0 minutes or more, as in minutes=6")
    conditions = conditions_of(pipe, size, frames, steps=steps, guidance=guidance)
    home = home_of(pipe, conditions)
    asked = {name: value for name, value in (("speed", speed), ("closeness", closeness)) if value is not None}
    of = {"home": asdict(home), "prompts": digest(prompts), "seed": seed, "asked": asked}
    with state_of(state, of) as done:
        begin = perf_counter()
        found = done.prices or prices or _measured(pipe, conditions, prompts[0], on_progress)
        if done.prices is None:
            done.set_prices(found)
            done.add_spent(PRICES, perf_counter() - begin)
        comparer = Comparer(pipe=pipe, conditions=conditions, prompts=prompts, seed=seed, prices=found)
        searched = tuple(range(len(prompts) - max(1, len(prompts) // 4)))
        board = Board(comparer, done, on_progress, crew_of)
        checked = tuple(range(len(searched), len(prompts)))
        if speed is not None:
            _check_reach(board, speed)
        winners, tried = Search(board, searched, checked, 60 * minutes).run(speed=speed, closeness=closeness)
        once = sum(board.seconds / winner.speed for winner in winners)
        least, most = turns_of(once, 60 * minutes)
        time_winners(board, winners, max(least, TURNS if asked else 1), most)
    measured = list(done.shares.values())  # nothing where no mask can be drawn
    shares = {mask: median(one[mask] for one in measured) for mask in (measured[0] if measured else ())}
    on_progress(1.0, "done")
    return Recipe(
        home=home,
        prices=found,
        shares=shares,
        prompts={"searched": len(searched), "checked": len(prompts) - len(searched), "sha256": digest(prompts)},
        seed=seed,
        asked=asked,
        points=tuple(_point(board, winner, checked, pipe) for winner in winners),
        trials=tuple(
            Trial(
                str(one.policy), one.steps, one.kind, one.speed, one.closeness, len(one.scores), one.shift, one.levels
            )
            for one in tried
        ),
        verdict=verdict(winners, tried, found, shares, speed=speed, closeness=closeness),
    )


def default_prompts(pipe: Any) -> list[str]:
    """Prompts for a pair whose user gave none."""
    from ..mini.opened import is_mini
    from ..mini.scenes import heldout_prompts

    mini = is_mini(pipe.config.get("_name_or_path") or "")
    return heldout_prompts(DEFAULT_PROMPTS) if mini else list(PROMPTS[:DEFAULT_PROMPTS])


def _check(pipe: Any, prompts: Sequence[str], steps: int, speed: float | None, closeness: float | None) -> None:
    """What can be refused before anything is drawn."""
    check_request(speed=speed, closeness=closeness)
    if not isinstance(getattr(pipe, "transformer", None), StitchedTransformer):
        raise RecipeError("this pipeline is not stitched; `hybridstitch.stitch(pipe, small=…)` first")
    seat_of(pipe)
    if not FEWEST <= len(prompts) <= MOST:
        raise RecipeError(
            f"{len(prompts)} prompt(s) were given to calibrate with; give {FEWEST} to {MOST}: fewer say nothing about "
            "other prompts, more only take longer"
        )
    if any(not prompt.strip() for prompt in prompts):
        raise RecipeError("a prompt to calibrate with is empty; leave it out, or say what to draw")
    if steps < 3:
        raise RecipeError(f"steps={steps} was given; below 3 steps of the reference there is nothing to choose from")


def _check_reach(board: Board, speed: float) -> None:
    """Refuse speeds beyond what the small model does in the fewest steps."""
    limit = board.seconds / board.prices.seconds(SmallOnly(), 2)
    if speed > limit:
        raise RecipeError(
            f"speed={speed:g} cannot be reached: the small model alone in 2 steps is {limit:.1f} times as fast as "
            f"{board.comparer.conditions.steps} steps of the large one; ask for less"
        )


def _measured(pipe: Any, conditions: Conditions, prompt: str, on_progress: OnProgress) -> Prices:
    """Prices of this machine, timed by drawing one prompt."""
    stitched = pipe.transformer
    alone = stitched.family.facts.guided(stitched.large.config)[0] == 1  # guidance is an input: no branch beside it
    kinds = UNGUIDED if alone else conditions.kinds
    return measure(
        lambda policy, steps: conditions.draw(pipe, prompt, policy, steps, seed=0),
        [kind for kind in kinds if draws(pipe, hybrid([masked(kind, RATIOS[0])]))],
        rounds=ROUNDS,
        on_round=lambda count: on_progress(0.05 * (count + 1) / (ROUNDS + 1), "what steps cost"),
    )


def _point(board: Board, winner: Standing, checked: Sequence[int], pipe: Any) -> Point:
    """A winner as the recipe keeps it."""
    held_out = board.row(winner.candidate, checked)
    return Point(
        policy=str(winner.policy),
        steps=winner.steps,
        shift=winner.shift,
        levels=winner.levels,
        kind=winner.kind,
        predicted=winner.speed,
        measured=measured_speed(board, winner),
        closeness=winner.interval,
        psnr=winner.psnr,
        held_out=held_out.closeness,
        memory_mib=memory_mib(pipe, winner.policy, winner.steps, board.comparer.conditions),
        distances=_band(winner),
    )


def memory_mib(pipe: Any, policy: Policy, steps: int, conditions: Conditions) -> float:
    """Weights of the models a policy draws with, and the keys and values it keeps for one image, in MiB.

    Args:
        pipe: stitched.
        policy: who draws what; an adaptive one may need both models.
        steps: T′ of its runs.
        conditions: of the calls.
    """
    stitched = pipe.transformer
    models = {"L": stitched.large, "S": stitched.small}
    plans = [] if policy.adaptive else fixed_plans(policy, steps)
    drawing = {stroke.model for plan in plans for stroke in plan.strokes} or {*models}
    taken = sum(p.numel() * p.element_size() for model in drawing for p in models[model].parameters())
    if policy.can_mask:
        large = stitched.large
        branches = stitched.family.facts.guided(large.config)[0] if conditions.guidance > 1 else 1
        facts, kept = stitched.family.facts, stitched.engine.kv_bytes or next(large.parameters()).element_size()
        assert facts.tokens is not None
        vae = getattr(pipe, "vae", None)
        tokens = facts.tokens(large.config, {} if vae is None else vae.config, conditions.pixels)
        text = facts.text if getattr(pipe, "text_encoder_3", pipe) is not None else pipe.tokenizer.model_max_length
        taken += shape_of(large, tokens, text).kv_bytes(branches=branches, element_bytes=kept)
    return taken / 2**20


def _band(winner: Standing) -> tuple[tuple[float, float] | None, ...]:
    """Per step the smallest and largest D over the prompts."""
    bands: list[tuple[float, float] | None] = []
    for values in zip(*(score.distances for score in winner.scores), strict=True):
        found = [value for value in values if value is not None]
        bands.append((min(found), max(found)) if found else None)
    return tuple(bands)
