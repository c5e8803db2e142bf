"""What things cost on this machine: strokes, steps and pictures, timed in real calls that take turns.

A round draws a few short pictures: the large model alone, the small one alone (long, so that the price of a step
stands out from that of a picture), and large steps followed by masked ones of every kind. The trace gives the seconds
of strokes; what is left of a call's seconds is the price of its steps and of the picture. Medians over rounds; the
first round warms up and is not counted.
"""

from collections.abc import Callable
from statistics import median
from typing import Any

from ..measure.price import Prices
from ..policies.latency import CostModel
from ..policies.methods import LargeOnly, Schedule, SmallOnly
from ..policies.plan import Region, Stroke
from ..policies.policy import Policy
from ..policies.trace import Trace
from .call import Call

ROUNDS = 3
LARGE_STEPS, SMALL_STEPS = 6, 24
MASKS = "L2 H@0.1 H@0.15 H@0.2 H@0.3 H@0.4"
KINDS = {  # of masked strokes
    "fresh": Schedule(MASKS),
    "cached": Schedule(MASKS, text="cached"),
    "cond": Schedule(MASKS, branches="cond"),
}


def measure(pipe: Any, call: Call, prompt: str, *, on_round: Callable[[], None]) -> Prices:
    """Time the pair.

    Args:
        pipe: stitched.
        call: the setting.
        prompt: what to draw.
        on_round: called after each of `ROUNDS + 1` rounds.
    """
    kinds = KINDS if call.guidance > 1 else {name: KINDS[name] for name in ("fresh", "cached")}
    runs: dict[str, tuple[Policy, int]] = {
        "large": (LargeOnly(), LARGE_STEPS),
        "small": (SmallOnly(), SMALL_STEPS),
        **{kind: (policy, 7) for kind, policy in kinds.items()},
    }
    drawn: dict[str, list[tuple[float, Trace]]] = {name: [] for name in runs}
    for place in range(ROUNDS + 1):
        for name, (policy, steps) in runs.items():
            taken = call.draw(pipe, prompt, policy, steps, seed=0)
            if place:
                drawn[name].append(taken)
        on_round()
    small = median(step.seconds for _, trace in drawn["small"] for step in trace.records[1:])
    large = median(step.seconds for _, trace in drawn["large"] for step in trace.records[1:])
    left = {name: median(seconds - trace.seconds for seconds, trace in drawn[name]) for name in ("large", "small")}
    step = max((left["small"] - left["large"]) / (SMALL_STEPS - LARGE_STEPS), 0.0)
    masked = {kind: _line(drawn[kind], large, small) for kind in kinds}
    return Prices(call=max(left["large"] - LARGE_STEPS * step, 0.0), step=step, large=large, small=small, masked=masked)


def _line(runs: list[tuple[float, Trace]], large: float, small: float) -> tuple[float, float]:
    """Intercept and slope over M of a masked stroke; what a hybrid step takes beyond the small model's stroke."""
    strokes = [(Stroke("L"), large), (Stroke("S"), small)]
    for place, step in enumerate(runs[0][1].records):
        ratio = next((s.region.ratio for s in step.plan.strokes if s.masked), None)
        if ratio is not None:
            seconds = median(trace.records[place].seconds for _, trace in runs)
            strokes.append((Stroke("L", Region(ratio)), max(seconds - small, 0.0)))
    fitted = CostModel.fit(strokes)
    return fitted.masked_base, fitted.masked_slope or 0.0
