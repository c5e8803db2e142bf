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
    latent, once unpacked, is only scaled and shifted for the VAE: Stable Diffusion 3's, FLUX.1's, and Qwen-Image's.
    """

    def __init__(self, pipe: Any, size: tuple[int, int]) -> None:
        """Listen to this pipeline's scheduler, as long as this object lives.

        Args:
            pipe: stitched.
            size: width and height of its pictures.
        """
        self._pipe, self._size = pipe, size
        self._expected: Tensor | None = None
        watch(pipe.scheduler, self)

    def observe(self, step: Stepped) -> None:
        """The scheduler made a step."""
        expected = step.returned if step.clean is None else step.clean
        self._expected = expected[:1].clone()  # (1, …)

    @torch.no_grad()
    def picture(self) -> Image.Image | None:
        """What the finished picture is expected to be now; None where it cannot be decoded here."""
        pipe, latent = self._pipe, self._expected
        vae, width, height = getattr(pipe, "vae", None), *self._size
        if vae is None or latent is None:
            return None
        latent = latent.to(vae.device, vae.dtype)
        if hasattr(pipe, "_unpack_latents") and latent.ndim == 3:  # tokens, as FLUX.1 and Qwen-Image have them
            latent = pipe._unpack_latents(latent, height, width, pipe.vae_scale_factor)
        match type(vae).__name__:
            case "AutoencoderKL" if latent.ndim == 4:
                scaled = latent / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
            case "AutoencoderKLQwenImage":  # (1, C, 1, H, W)
                mean, spread = (latent.new_tensor(vae.config[key]) for key in ("latents_mean", "latents_std"))
                scaled = latent * spread[:, None, None, None] + mean[:, None, None, None]
            case _:
                return None
        pixels = vae.decode(scaled, return_dict=False)[0]  # (1, 3, H, W), of Qwen-Image (1, 3, 1, H, W)
        return pipe.image_processor.postprocess(pixels.reshape(1, 3, *pixels.shape[-2:]), output_type="pil")[0]
