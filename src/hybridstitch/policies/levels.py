"""Noise levels for few steps: where along the way the steps are taken, by a shift, or each by itself.

    σ_i = s·u / (1 + (s − 1)·u),   u = 1, 1 − 1/T, …, 1/T,   then 0

A pipeline left alone spreads T levels from σ = 1 to nearly 0, so that its last step moves nothing; these end with a
step from σ_{T−1} to 0. The larger the shift s, the shorter the first steps and the longer the last. *Free levels* are
T such σ of any spacing, falling, at most 1 and above 0.

A scheduler applies a shift of its own to the levels it is given; what is passed here allows for it.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from ..errors import SchedulerError


def shifted(steps: int, shift: float, *, own: float) -> list[float]:
    """What to pass as `sigmas=` to a pipeline, so that its steps begin at the noise levels above.

    Args:
        steps: T.
        shift: s.
        own: the scheduler's own shift, see `own_shift`, which it applies to what it is given.

    Returns:
        T levels, falling.

    Raises:
        SchedulerError: fewer than one step, or a shift that is not positive.
    """
    if steps < 1 or shift <= 0 or own <= 0:
        raise SchedulerError(f"steps={steps}, shift={shift}, own={own} were given; all must be positive")
    s = shift / own
    return [s * u / (1 + (s - 1) * u) for u in (1 - i / steps for i in range(steps))]


def unshifted(levels: Sequence[float], *, own: float) -> list[float]:
    """What to pass as `sigmas=` to a pipeline, so that its steps begin at these very levels.

    Args:
        levels: σ of every step, falling.
        own: as in `shifted`.
    """
    return [level / (own - (own - 1) * level) for level in levels]


def check_levels(steps: int, shift: float | None, levels: Sequence[float] | None) -> None:
    """Refuse noise levels that no run can have.

    Args:
        steps: T.
        shift: s, or None.
        levels: free ones, or None.

    Raises:
        SchedulerError: both a shift and levels, a shift that is not positive, or levels that do not fall or are not T.
    """
    if shift is not None and not shift > 0:
        raise SchedulerError(f"shift={shift} was given; a shift of the noise levels is above 0")
    if levels is None:
        return
    if shift is not None:
        raise SchedulerError("a shift and levels were given; each determines the other: give one of the two")
    if len(levels) != steps or not levels:
        raise SchedulerError(f"{len(levels)} noise levels were given for {steps} steps; give one for each")
    if not levels[0] <= 1 or not levels[-1] > 0 or not all(a > b for a, b in pairwise(levels)):
        shown = " ".join(f"{level:g}" for level in levels)
        raise SchedulerError(f"the noise levels {shown} were given; they fall from at most 1 and stay above 0")


def at_levels(scheduler: Any, steps: int, shift: float | None, levels: Sequence[float] | None) -> dict[str, Any]:
    """What a pipeline's call takes to draw at noise levels: `sigmas`, or nothing where they are left to the pipeline.

    Args:
        scheduler: the pipeline's.
        steps, shift, levels: see `check_levels`.

    Raises:
        SchedulerError: as `check_levels`, or a scheduler without such levels.
    """
    check_levels(steps, shift, levels)
    if shift is not None:
        return {"sigmas": shifted(steps, shift, own=own_shift(scheduler))}
    return {} if levels is None else {"sigmas": unshifted(levels, own=own_shift(scheduler))}


def levels_of(scheduler: Any, steps: int, shift: float | None, levels: Sequence[float] | None) -> list[float]:
    """σ of every step of a run; of a scheduler that follows the picture's size, before it does.

    Args:
        scheduler: the pipeline's; it is left as it is.
        steps, shift, levels: see `check_levels`.

    Raises:
        SchedulerError: as `at_levels`.
    """
    given = at_levels(scheduler, steps, shift, levels)
    if getattr(scheduler.config, "use_dynamic_shifting", False):
        return list(given.get("sigmas", [1 - step / steps for step in range(steps)]))
    run = type(scheduler).from_config(scheduler.config)
    run.set_timesteps(**(given or {"num_inference_steps": steps}))
    return run.sigmas[:steps].tolist()


def own_shift(scheduler: Any) -> float:
    """What a scheduler shifts given levels by; one that follows the picture's size does so on top: 1 stands for it.

    Raises:
        SchedulerError: it does not shift levels of flow matching.
    """
    own = getattr(scheduler.config, "shift", None)
    if own is None:
        raise SchedulerError(
            f"{type(scheduler).__name__} is given no noise levels; leave the shift or the levels out, or use "
            "FlowMatchEulerDiscreteScheduler"
        )
    return 1.0 if getattr(scheduler.config, "use_dynamic_shifting", False) else float(own)
