"""Pipelines beside a text-to-image pipeline, of the same parts: image to image, and inpainting."""

import sys
from typing import Any, Literal

import diffusers

from ..errors import PairError

# By the pipeline that begins with noise, what diffusers calls the others: <name>Img2ImgPipeline, <name>InpaintPipeline.
FAMILIES = {
    "StableDiffusion3Pipeline": "StableDiffusion3",
    "FluxPipeline": "Flux",
    "QwenImagePipeline": "QwenImage",
}
KNOWN = "Stable Diffusion 3, FLUX.1 or Qwen-Image"


def has_beside(pipe: Any) -> bool:
    """Whether a pipeline has others beside it."""
    return type(pipe).__name__ in FAMILIES


def beside(pipe: Any, kind: Literal["Img2Img", "Inpaint"]) -> Any:
    """The pipeline of the same parts that draws from a picture, or into a hole of one, without its progress bar.

    Args:
        pipe: begins with noise; one whose module brings others of its own has those.
        kind: as diffusers names it.

    Raises:
        PairError: there is none.
    """
    name = type(pipe).__name__
    if name not in FAMILIES:
        raise PairError(f"{name} draws from noise only; a pair of {KNOWN} draws from pictures, too")
    wanted = f"{FAMILIES[name]}{kind}Pipeline"
    made: Any = getattr(sys.modules[type(pipe).__module__], wanted, None) or getattr(diffusers, wanted)
    other = made(**pipe.components)
    other.set_progress_bar_config(disable=True)
    return other


def strength_of(steps: int, start: int) -> float:
    """What such a pipeline takes so that it begins with a step of its run.

    Args:
        steps: T.
        start: the step, from 1.
    """
    return (steps - start - 0.5) / steps  # it rounds what is left up
