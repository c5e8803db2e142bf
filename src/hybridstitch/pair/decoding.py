"""A clean latent as its pipeline's picture or video: the pipeline decodes it itself, whatever it draws.

Its own call is made with a transformer that answers nothing and a scheduler whose step gives the latent, so that no
scale, mean or packing of any VAE is known here.
"""

import inspect
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .stitched import StitchedTransformer


@torch.no_grad()
def pictures(pipe: Any, latent: Tensor, **call: Any) -> list[Image.Image]:
    """What a pipeline makes of a latent.

    Args:
        pipe: stitched.
        latent: as its scheduler's last step returns it, of one image.
        call: as the pipeline was called for it: prompt, size, steps.

    Returns:
        one picture, or the frames of a video.
    """
    stitched: StitchedTransformer = pipe.transformer
    scheduler, quiet = pipe.scheduler, getattr(pipe, "_progress_bar_config", {})
    bind, found = inspect.signature(scheduler.step).bind, vars(scheduler).get("step")

    def forward(*args: Any, return_dict: bool = True, **kwargs: Any) -> tuple[Tensor]:
        return (torch.zeros_like(stitched.bind(args, kwargs)["hidden_states"]),)

    def step(*args: Any, **kwargs: Any) -> Any:
        given = bind(*args, **kwargs).arguments
        pipe._interrupt = True  # no other step is needed
        made = latent.to(given["sample"])
        return SimpleNamespace(prev_sample=made) if given.get("return_dict", True) else (made, made)

    pipe.set_progress_bar_config(**{**quiet, "disable": True})
    stitched.forward, scheduler.step = forward, step
    try:
        drawn = pipe(**{**call, "output_type": "pil", "return_dict": True})
    finally:
        del stitched.forward, scheduler.step
        if found is not None:
            scheduler.step = found
        pipe.set_progress_bar_config(**quiet)
    return pictures_of(drawn)


def pictures_of(drawn: Any, place: int = 0) -> list[Image.Image]:
    """One image, or the frames of one video, of what a pipeline returned as PIL."""
    return list(drawn.frames[place]) if hasattr(drawn, "frames") else [drawn.images[place]]


def in_one(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size, one below the other; a single one as it is."""
    if len(pictures) == 1:
        return pictures[0]
    width, height = pictures[0].size
    whole = Image.new("RGB", (width, height * len(pictures)))
    for place, picture in enumerate(pictures):
        whole.paste(picture, (0, place * height))
    return whole
