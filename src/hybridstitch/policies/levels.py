"""Noise levels for few steps: where along the way the steps are taken.

    σ_i = s·u / (1 + (s − 1)·u),   u = 1, 1 − 1/T, …, 1/T,   then 0

A pipeline left alone spreads T levels from σ = 1 to nearly 0, so that its last step moves nothing; these end with a
step from σ_{T−1} to 0. The larger the shift s, the shorter the first steps and the longer the last.
"""

from ..errors import SchedulerError


def shifted(steps: int, shift: float, *, own: float) -> list[float]:
    """What to pass as `sigmas=` to a pipeline, so that its steps begin at the noise levels above.

    Args:
        steps: T.
        shift: s.
        own: the scheduler's own shift, `pipe.scheduler.config.shift`, which it applies to what it is given.

    Returns:
        T levels, falling.

    Raises:
        SchedulerError: fewer than one step, or a shift that is not positive.
    """
    if steps < 1 or shift <= 0 or own <= 0:
        raise SchedulerError(f"steps={steps}, shift={shift}, own={own} were given; all must be positive")
    s = shift / own
    return [s * u / (1 + (s - 1) * u) for u in (1 - i / steps for i in range(steps))]
