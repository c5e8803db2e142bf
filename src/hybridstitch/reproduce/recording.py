"""Work of the calibration that a crew shares out: the distances of one prompt along some programs."""

from collections.abc import Mapping, Sequence
from functools import partial

from ..batch.crew import Crew
from ..measure.lockstep import draw_together
from ..measure.start import prepare
from ..policies.policy import Policy
from .equipment import Equipment
from .thresholds import Curve


def record(equipment: Equipment, task: tuple[int, Mapping[str, Policy]]) -> dict[str, Curve]:
    """D_0, D_1, … of one prompt by each policy, up to its first repeated prediction.

    Args:
        equipment: draws.
        task: which prompt, and policies by name.
    """
    image, policies = task
    start = prepare(equipment.pipe, steps=equipment.settings.steps, **equipment.settings.call(image))
    drawn = draw_together(equipment.pipe, start, policies)
    return {name: [s.distance for s in d.trace.of(0) if s.drawn.strokes] for name, d in drawn.items()}


def recorder(crew: Crew[Equipment]) -> "partial[list[dict[str, Curve]]]":
    """What `thresholds.calibrate` records with."""
    return partial(_all, crew)


def _all(crew: Crew[Equipment], programs: Sequence[Mapping[str, Policy]]) -> list[dict[str, Curve]]:
    found: dict[int, dict[str, Curve]] = dict(crew.map(record, list(enumerate(programs))))
    return [found[place] for place in range(len(programs))]
