"""What a user should know of a run as it begins: where it leaves its preset's setting, and masks that save nothing."""

from collections.abc import Iterator
from typing import Any

from ..compat import call_seen, sigmas_of
from ..families.family import Inputs
from ..policies.presets import warning
from .dear import dear_mask


def told(stitched: Any, pipe: Any, scheduler: Any, inputs: Inputs, steps: int) -> Iterator[str]:
    """Sentences for warnings.

    Args:
        stitched: the stitched transformer.
        pipe: the pipeline that calls it, or None.
        scheduler: its scheduler, its timesteps set.
        inputs: of the run's first call.
        steps: T.
    """
    preset, words = stitched.preset, stitched.words
    wanted = preset.noise(scheduler, steps)
    noise = None if wanted is None else (wanted, sigmas_of(scheduler, steps))
    outside = warning(preset, steps=steps, noise=noise, **call_seen(pipe, scheduler, inputs["hidden_states"]))
    if outside is not None:
        yield outside
    guides = words is not None and words.guidance is not None  # the small model itself, by a second call
    dear = dear_mask(preset.policy, pipe, stitched.large, stitched.small, calls=2) if guides else None
    if dear is not None:
        yield dear
