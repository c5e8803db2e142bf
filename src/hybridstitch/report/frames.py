"""The picture emerging: at some steps, what the finished picture was expected to be, d_i (Eq. 10)."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..drawing.stepped import Stepped
from ..pair.decoding import in_one, pictures
from ..pair.observer import Listener, watch
from .clip import shown

COUNT = 8


class Frames(Listener):
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
            self._kept.append((self._step, expected[:1].clone()))  # (1, …)
        self._step += 1

    def decode(self, pipe: Any, **call: Any) -> tuple[tuple[int, Image.Image], ...]:
        """(step, picture) of the steps kept; of a video some frames, one below the other.

        Args:
            pipe: which decodes.
            call: as it was called.
        """
        found = []
        for step, latent in self._kept:
            drawn = pictures(pipe, latent, **call)
            found.append((step, in_one([drawn[frame] for frame in shown(len(drawn))])))
        return tuple(found)


class Latest(Listener):
    """Listens to a scheduler and holds d_i of the last step, so that the picture can be seen as it is drawn.

    In the middle of a run the pipeline cannot be called to decode, as `Frames` does afterwards; so this serves where a
    latent (B, C, H, W) is only scaled and shifted for the VAE, as Stable Diffusion 3's.
    """

    def __init__(self, pipe: Any) -> None:
        """Listen to this pipeline's scheduler, as long as this object lives."""
        self._pipe = pipe
        self._expected: Tensor | None = None
        watch(pipe.scheduler, self)

    def observe(self, step: Stepped) -> None:
        """The scheduler made a step."""
        expected = step.returned if step.clean is None else step.clean
        self._expected = expected[:1].clone()  # (1, …)

    def picture(self) -> Image.Image | None:
        """What the finished picture is expected to be now; None where it cannot be decoded here."""
        vae, latent = getattr(self._pipe, "vae", None), self._expected
        if vae is None or latent is None or latent.ndim != 4 or vae.config.get("shift_factor") is None:
            return None
        with torch.no_grad():
            latent = latent.to(vae.device, vae.dtype) / vae.config.scaling_factor + vae.config.shift_factor
            pixels = vae.decode(latent, return_dict=False)[0]
        return self._pipe.image_processor.postprocess(pixels, output_type="pil")[0]
