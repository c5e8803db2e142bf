"""The picture emerging: at some steps, what the finished picture was expected to be, d_i (Eq. 10)."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..drawing.stepped import Stepped
from ..pair.observer import watch

COUNT = 8


class Frames:
    """Listens to a scheduler and keeps d_i of a few steps; decoding waits until the run is over.

    Attributes:
        steps: the steps kept, ascending.
    """

    def __init__(self, steps: int, count: int = COUNT) -> None:
        """Choose `count` steps of T, the first and the last among them.

        Args:
            steps: T.
            count: how many.
        """
        count = min(count, steps)
        self.steps = tuple(round(k * (steps - 1) / max(1, count - 1)) for k in range(count))
        self._step = 0
        self._kept: list[tuple[int, Tensor]] = []

    def follow(self, pipe: Any) -> None:
        """Listen to this pipeline's scheduler, as long as this object lives."""
        watch(pipe.scheduler, self)

    def observe(self, step: Stepped) -> None:
        """The scheduler made a step."""
        if self._step in self.steps:
            expected = step.returned if step.clean is None else step.clean
            self._kept.append((self._step, expected[:1].clone()))  # (1, C, H, W)
        self._step += 1

    def decode(self, pipe: Any) -> tuple[tuple[int, Image.Image], ...]:
        """(step, picture) of the steps kept.

        Args:
            pipe: whose VAE decodes.
        """
        return tuple((step, decoded(pipe, latent)) for step, latent in self._kept)


class Latest:
    """Listens to a scheduler and holds d_i of the last step, so that the picture can be seen as it is drawn."""

    def __init__(self, pipe: Any) -> None:
        """Listen to this pipeline's scheduler, as long as this object lives."""
        self._pipe = pipe
        self._expected: Tensor | None = None
        watch(pipe.scheduler, self)

    def observe(self, step: Stepped) -> None:
        """The scheduler made a step."""
        expected = step.returned if step.clean is None else step.clean
        self._expected = expected[:1].clone()  # (1, C, H, W)

    def picture(self) -> Image.Image:
        """What the finished picture is expected to be now; at least one step was made."""
        assert self._expected is not None
        return decoded(self._pipe, self._expected)


def decoded(pipe: Any, latent: Tensor) -> Image.Image:
    """A latent as a picture.

    Args:
        pipe: whose VAE decodes.
        latent: (1, C, H, W).
    """
    vae = pipe.vae
    with torch.no_grad():
        latent = latent.to(vae.device, vae.dtype) / vae.config.scaling_factor + vae.config.shift_factor
        pixels = vae.decode(latent, return_dict=False)[0]
    return pipe.image_processor.postprocess(pixels, output_type="pil")[0]
