"""Work of the calibration that a crew shares out: the distances of one prompt along some programs."""

from collections.abc import Mapping, Sequence
from functools import partial

from ..batch.crew import Crew
from ..measure.lockstep import draw_together, prepare
from ..policies.policy import Policy
from .studio import Studio
from .thresholds import Curve


def record(studio: Studio, task: tuple[int, Mapping[str, Policy]]) -> dict[str, Curve]:
    """D_0, D_1, … of one prompt by each policy, up to its first repeated prediction.

    Args:
        studio: draws.
        task: which prompt, and policies by name.
    """
    image, policies = task
    settings = studio.settings
    start = prepare(
        studio.pipe, settings.prompts[image], steps=settings.steps, guidance=settings.guidance,
        seed=settings.seed + image, width=settings.size[0], height=settings.size[1],
    )  # fmt: skip
    drawn = draw_together(studio.pipe, start, policies)
    return {name: [s.distance for s in d.trace.of(0) if s.drawn.strokes] for name, d in drawn.items()}


def recorder(crew: Crew[Studio]) -> "partial[list[dict[str, Curve]]]":
    """What `thresholds.calibrate` records with."""
    return partial(_all, crew)


def _all(crew: Crew[Studio], programs: Sequence[Mapping[str, Policy]]) -> list[dict[str, Curve]]:
    found: dict[int, dict[str, Curve]] = dict(crew.map(record, list(enumerate(programs))))
    return [found[place] for place in range(len(programs))]
