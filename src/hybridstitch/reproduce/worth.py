"""f(M): the share of ‖v_L − v_S‖² that lies inside a mask, over the steps that a hybrid stage covers."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

from ..batch.crew import Crew
from ..measure.profile import follow
from .equipment import Equipment
from .implied import switches

PROMPTS = 4
RATIOS = (0.1, 0.15, 0.2, 0.3, 0.4)
KINDS = ("denoised", "oracle", "random")


def shares(equipment: Equipment, image: int) -> dict[float, dict[str, list[float]]]:
    """f of one prompt by mask and kind of mask, a value for each step."""
    way = follow(equipment.pipe, steps=equipment.settings.steps, **equipment.settings.call(image))
    return {ratio: {kind: way.shares(ratio, kind) for kind in KINDS} for ratio in RATIOS}


def measure(crew: Crew[Equipment]) -> dict[str, Any]:
    """Means over a few prompts and over the steps between the switches that 30 % masks have.

    Returns:
        a JSON object: `first` and `last` step, `prompts`, and `f` by mask and kind.
    """
    settings = crew.here.settings
    count = min(PROMPTS, settings.n)
    first, last = switches(settings.steps)["hybridstitch-30"]
    found: Sequence[dict[float, dict[str, list[float]]]] = [f for _, f in crew.map(shares, list(range(count)))]
    means = {
        str(ratio): {kind: mean(v for f in found for v in f[ratio][kind][first:last]) for kind in KINDS}
        for ratio in RATIOS
    }
    return {"first": first, "last": last, "prompts": count, "f": means}
