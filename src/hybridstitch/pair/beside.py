"""Pipelines beside a text-to-image pipeline, of the same parts: image to image, and inpainting."""

import sys
from typing import Any, Literal, get_args

import diffusers

from ..errors import PairError

Kind = Literal["Img2Img", "Inpaint"]  # as diffusers calls <name>Img2ImgPipeline beside <name>Pipeline
BROKEN = {"ChromaInpaintPipeline"}  # diffusers 0.42.1: asks the transformer for what its configuration does not have
KNOWN = "Stable Diffusion 3, FLUX.1 or Qwen-Image"


def has_beside(pipe: Any) -> bool:
    """Whether a pipeline has both others beside it."""
    return all(_named(pipe, kind) is not None for kind in get_args(Kind))


def beside(pipe: Any, kind: Kind) -> Any:
    """The pipeline of the same parts that draws from a picture, or into a hole of one, without its progress bar.

    Args:
        pipe: begins with noise; one whose module brings others of its own has those.
        kind: as diffusers names it.

    Raises:
        PairError: there is none.
    """
    made = _named(pipe, kind)
    if made is None:
        raise PairError(f"{type(pipe).__name__} has no image-to-image here; use a pair of {KNOWN}")
    other = made(**pipe.components)
    other.set_progress_bar_config(disable=True)
    return other


def _named(pipe: Any, kind: Kind) -> Any:
    """The class of that name, of the pipeline's own module or of diffusers; None where there is none."""
    name = f"{type(pipe).__name__.removesuffix('Pipeline')}{kind}Pipeline"
    if name in BROKEN:
        return None
    return getattr(sys.modules[type(pipe).__module__], name, None) or getattr(diffusers, name, None)


def strength_of(steps: int, start: int) -> float:
    """What such a pipeline takes so that it begins with a step of its run.

    Args:
        steps: T.
        start: the step, from 1.
    """
    return (steps - start - 0.5) / steps  # it rounds what is left up
