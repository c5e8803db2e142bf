"""`calibrate`: from a stitched pair and some prompts to a recipe."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from ..families.known import shape_of
from ..measure.price import Prices
from ..pair.stitched import StitchedTransformer
from ..policies.latency import Shape
from ..policies.methods import LargeOnly, SmallOnly
from ..policies.policy import Policy
from ..policies.trace import Trace
from ..recipe import Point, Recipe, RecipeError, Trial, check_request
from ..recipe.file import DELIVERED
from .call import Call, digest, home_of, native_size
from .drawing import Studio
from .measure import ROUNDS, measure
from .prompts import PROMPTS
from .search import OnProgress, Search
from .state import State
from .table import Row
from .verdict import verdict

STEPS, GUIDANCE = 50, 4.0
FEWEST, MOST = 4, 16  # prompts
DEFAULT_PROMPTS = 8
TIMINGS = 3  # of a point, where one was asked for; once each on a whole front, and again where it strays


def calibrate(
    pipe: Any,
    prompts: Sequence[str] | None = None,
    *,
    speed: float | None = None,
    closeness: float | None = None,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    prices: Prices | None = None,
    state: Path | None = None,
    on_progress: OnProgress = lambda share, doing: None,
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
        seed: of the noise of the first prompt; each prompt has the next.
        prices: of this machine, of an earlier recipe; None measures them.
        state: a file that holds what was done, so that a calibration that was killed goes on; None keeps nothing.
        on_progress: told the share of the work that is done, and what is being done.

    Raises:
        RecipeError: a request that cannot be meant or reached, too few or too many prompts.
        HybridStitchError: as the pipeline's own calls.
    """
    prompts = tuple(default_prompts(pipe) if prompts is None else prompts)
    _check(pipe, prompts, steps, speed, closeness)
    width, height = size or native_size(pipe)
    call = Call(width=width, height=height, steps=steps, guidance=guidance)
    home = home_of(pipe, call)
    asked = {name: value for name, value in (("speed", speed), ("closeness", closeness)) if value is not None}
    done = State(state, {"home": asdict(home), "prompts": digest(prompts), "seed": seed, "asked": asked})
    if done.prices is None and prices is not None:
        done.set_prices(prices)
    elif done.prices is None:
        rounds = iter(range(1, ROUNDS + 2))

        def tell() -> None:
            on_progress(0.05 * next(rounds) / (ROUNDS + 1), "what steps cost")

        done.set_prices(measure(pipe, call, prompts[0], on_round=tell))
    assert done.prices is not None
    studio = Studio(pipe=pipe, call=call, prompts=prompts, seed=seed, prices=done.prices)
    searched = tuple(range(len(prompts) - max(1, len(prompts) // 4)))
    search = Search(studio, done, searched, tuple(range(len(searched), len(prompts))), on_progress)
    if speed is not None:
        _check_reach(search, speed)
    winners, tried = search.run(speed=speed, closeness=closeness)
    _time(search, winners, TIMINGS if asked else 1)
    shares = {mask: median(found[mask] for found in done.shares.values()) for mask in next(iter(done.shares.values()))}
    on_progress(1.0, "done")
    return Recipe(
        home=home,
        prices=done.prices,
        shares=shares,
        prompts={"searched": len(searched), "checked": len(prompts) - len(searched), "sha256": digest(prompts)},
        seed=seed,
        asked=asked,
        points=tuple(_point(search, row, pipe) for row in winners),
        trials=tuple(
            Trial(str(row.policy), row.steps, row.kind, row.speed, row.closeness, len(row.scores)) for row in tried
        ),
        verdict=verdict(winners, tried, done.prices, shares, speed=speed, closeness=closeness),
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
    if not FEWEST <= len(prompts) <= MOST:
        raise RecipeError(
            f"{len(prompts)} prompt(s) were given to calibrate with; give {FEWEST} to {MOST}: fewer say nothing about "
            "other prompts, more only take longer"
        )
    if any(not prompt.strip() for prompt in prompts):
        raise RecipeError("a prompt to calibrate with is empty; leave it out, or say what to draw")
    if steps < 3:
        raise RecipeError(f"steps={steps} was given; below 3 steps of the reference there is nothing to choose from")


def _check_reach(search: Search, speed: float) -> None:
    """Refuse speeds beyond what the small model does in the fewest steps."""
    limit = search.seconds / search.prices.seconds(SmallOnly(), 2)
    if speed > limit:
        raise RecipeError(
            f"speed={speed:g} cannot be reached: the small model alone in 2 steps is {limit:.1f} times as fast as "
            f"{search.studio.call.steps} steps of the large one; ask for less"
        )


def _time(search: Search, winners: Sequence[Row], rounds: int) -> None:
    """Time real calls of the winners and the reference, in turn; again, up to three times, where a time strays.

    Machines change their pace from one second to the next, by more than a speed may be off. So a call's seconds are
    told at the pace of the prices: divided by how much longer than priced its median step took.
    """
    studio, state = search.studio, search.state
    for turn in range(TIMINGS):
        reference = state.timed.get((studio.call.steps, "large"), [])[:turn]
        for row in winners:
            times = state.timed.get((row.steps, str(row.policy)), [])
            before = times[:turn]  # not what a later turn of a run that goes on has recorded
            measured = median(reference) / median(before) if before and reference else row.speed
            strays = abs(measured / row.speed - 1) > DELIVERED / 2
            if len(times) > turn or (turn >= rounds and not strays and row.kind != "large"):
                continue
            seconds, trace = studio.call.draw(studio.pipe, studio.prompts[0], row.policy, row.steps, studio.seed)
            state.add_time(row.steps, str(row.policy), seconds / _pace(trace, studio.prices))
        search.on_progress(0.95 + 0.05 * (turn + 1) / TIMINGS, "the speed of whole calls")


def _pace(trace: Trace, prices: Prices) -> float:
    """How much longer than priced the median drawn step of a call took."""
    drawn = [step for step in trace.of(0) if step.drawn.strokes]
    return median(step.seconds / sum(map(prices.stroke, step.drawn.strokes)) for step in drawn)


def _point(search: Search, row: Row, pipe: Any) -> Point:
    """A winner as the recipe keeps it."""
    times = search.state.timed
    reference = median(times[search.studio.call.steps, "large"])
    checked = search.row(row.policy, row.steps, search.checked)
    return Point(
        policy=str(row.policy),
        steps=row.steps,
        kind=row.kind,
        predicted=row.speed,
        measured=reference / median(times[row.steps, str(row.policy)]),
        closeness=row.interval,
        psnr=row.psnr,
        held_out=checked.closeness,
        memory_mib=memory_mib(pipe, row.policy, search.studio.call),
        distances=_band(row),
    )


def memory_mib(pipe: Any, policy: Policy, call: Call) -> float:
    """Weights of the models a policy draws with, and the keys and values it keeps for one image, in MiB.

    Args:
        pipe: stitched.
        policy: who draws what.
        call: the setting.
    """
    stitched = pipe.transformer
    models = [] if isinstance(policy, SmallOnly) else [stitched.large]
    models += [] if isinstance(policy, LargeOnly) else [stitched.small]
    taken = sum(p.numel() * p.element_size() for model in models for p in model.parameters())
    if policy.can_mask:
        scale = pipe.vae_scale_factor * stitched.large.config["patch_size"]
        text = pipe.tokenizer.model_max_length if pipe.text_encoder_3 is None else 333
        shape: Shape = shape_of(stitched.large, call.width // scale * (call.height // scale), text)
        size = next(stitched.large.parameters()).element_size()
        taken += shape.kv_bytes(branches=2 if call.guidance > 1 else 1, element_bytes=size)
    return taken / 2**20


def _band(row: Row) -> tuple[tuple[float, float] | None, ...]:
    """Per step the smallest and largest D over the prompts."""
    bands: list[tuple[float, float] | None] = []
    for values in zip(*(score.distances for score in row.scores), strict=True):
        found = [value for value in values if value is not None]
        bands.append((min(found), max(found)) if found else None)
    return tuple(bands)
