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
        pictures, vae = [], pipe.vae
        for step, latent in self._kept:
            with torch.no_grad():
                latent = latent.to(vae.device, vae.dtype) / vae.config.scaling_factor + vae.config.shift_factor
                decoded = vae.decode(latent, return_dict=False)[0]
            pictures.append((step, pipe.image_processor.postprocess(decoded, output_type="pil")[0]))
        return tuple(pictures)
