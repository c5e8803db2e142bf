"""One call of the pipeline, as a user makes it, timed: the denoising loop, and from the prompt to the picture."""

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from PIL import Image

from ..drawing.clock import wait
from ..policies.policy import Policy
from ..policies.trace import Trace
from .settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A picture and its seconds.

    Attributes:
        image: as the pipeline gives it.
        denoising_seconds: wall time from the transformer's first call to the scheduler's last step.
        total_seconds: wall time of the call: text encoders, loop, decoder.
        trace: who drew what.
    """

    image: Image.Image
    denoising_seconds: float
    total_seconds: float
    trace: Trace


def call(pipe: Any, settings: Settings, *, image: int, policy: Policy, steps: int | None = None) -> Timed:
    """Draw a picture by the pipeline's own call.

    Args:
        pipe: the stitched pipeline.
        settings: prompts, seed, size and guidance.
        image: which prompt.
        policy: who draws what.
        steps: T; default: the settings'.
    """
    pipe.transformer.policy = policy
    picture, loop, total = clocked(pipe, settings, image=image, steps=steps or settings.steps)
    return Timed(image=picture, denoising_seconds=loop, total_seconds=total, trace=pipe.transformer.trace)


def clocked(pipe: Any, settings: Settings, *, image: int, steps: int) -> tuple[Image.Image, float, float]:
    """A picture by whatever the pipeline holds, with the seconds of its denoising loop and of the whole call."""
    marks: list[float] = []

    def begins(*_: Any) -> None:
        if not marks:
            marks.append(_now(settings.device))

    def ends(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step == steps - 1:
            marks.append(_now(settings.device))
        return tensors

    handle = pipe.transformer.register_forward_pre_hook(begins)
    start = _now(settings.device)
    try:
        picture: Image.Image = pipe(
            settings.prompts[image],
            num_inference_steps=steps,
            guidance_scale=settings.guidance,
            width=settings.size[0],
            height=settings.size[1],
            generator=torch.Generator("cpu").manual_seed(settings.seed + image),
            callback_on_step_end=ends,
        ).images[0]
    finally:
        handle.remove()
    return picture, marks[1] - marks[0], _now(settings.device) - start


def _now(device: str) -> float:
    wait(torch.device(device))
    return perf_counter()
