"""Where and how much the two models differ along the large model's way: measured once a folder, for Figures 1b and 2.

At every step both models see the large model's latent; what is compared is their prediction after guidance. Kept for
each prompt in OUT/figures/differences/0007.npz, so that a second figure, or a resumed run, draws nothing again.
"""

import io
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...batch.crew import Crew
from ...disk import files as disk
from ...measure.profile import follow
from ...measure.start import decode, prepare
from ..equipment import Equipment

PROMPTS = 8
SHARES = (0.2, 0.6, 1.0)  # of the steps: 10, 30 and 50 of 50, as in the paper


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Difference:
    """One prompt.

    Attributes:
        prompt: what was drawn.
        picture: the large model's, (H, W, 3), uint8.
        tokens: ‖v_L − v_S‖² of each token at each step, (T, rows, columns).
        steps: the steps looked at in detail, counted from 1.
        values: |v_L − v_S| of each number of the latent at those steps, (len(steps), C·h·w).
        size: ‖v_L‖ / √(C·h·w) at those steps, (len(steps),).
    """

    prompt: str
    picture: NDArray[np.uint8]
    tokens: NDArray[np.float32]
    steps: NDArray[np.int64]
    values: NDArray[np.float32]
    size: NDArray[np.float32]


def measured(crew: Crew[Equipment]) -> list[Difference]:
    """Of the first prompts of a reproduction."""
    settings = crew.here.settings
    count = min(PROMPTS, settings.n)
    missing = [image for image in range(count) if _read(settings.figures, settings.prompts[image], image) is None]
    for _ in crew.map(measure, missing):
        pass
    found = [_read(settings.figures, settings.prompts[image], image) for image in range(count)]
    return [difference for difference in found if difference is not None]


def measure(equipment: Equipment, image: int) -> None:
    """Follow the large model on one prompt and keep what was seen."""
    settings = equipment.settings
    way = follow(equipment.pipe, steps=settings.steps, **settings.call(image))
    start = prepare(equipment.pipe, steps=settings.steps, **settings.call(image))
    steps = [max(1, round(share * len(way.large))) for share in SHARES]
    picked = [step - 1 for step in steps]
    first = start.inputs(start.latent, 0)[0]
    *above, columns = map(int, equipment.pipe.transformer.family.grid(first))  # of a video its frames lie above too
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {
        "picture": decode(equipment.pipe, start, way.latents[-1:]),
        "tokens": way.difference.unflatten(1, (prod(above), columns)).cpu().numpy(),
        "steps": np.array(steps),
        "values": (way.large[picked] - way.small[picked]).abs().flatten(1).cpu().numpy(),
        "size": way.large[picked].flatten(1).square().mean(1).sqrt().cpu().numpy(),
    }
    np.savez_compressed(buffer, **arrays)
    path = _path(settings.figures, image)
    path.parent.mkdir(parents=True, exist_ok=True)
    disk.keep(path, buffer.getvalue())


def _path(figures: Path, image: int) -> Path:
    return figures / "differences" / f"{image:04}.npz"


def _read(figures: Path, prompt: str, image: int) -> Difference | None:
    """What was kept, or None where nothing whole is there."""
    try:
        with np.load(_path(figures, image)) as kept:
            return Difference(prompt=prompt, **{name: kept[name] for name in kept})
    except (OSError, ValueError, EOFError, KeyError, TypeError):
        return None
