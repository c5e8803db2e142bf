"""Two models in a denoising loop of your own.

A loop needs two lines of the pipeline: it calls `pipe.transformer`, and it steps `pipe.scheduler`. The first is where
the two models draw, the second is where the stitched transformer sees what came out. Everything else is yours.

    python examples/own_loop.py "a big dog on a meadow"
"""

import sys
from typing import Any

import torch
from torch import Tensor

import hybridstitch


@torch.no_grad()
def draw(pipe: Any, prompt: str, *, steps: int = 50, guidance: float = 4.0, seed: int = 0, **encode: Any) -> Tensor:
    """A picture by Stable Diffusion 3, from the prompt to the latent.

    Args:
        pipe: a Stable Diffusion 3 pipeline, stitched or not.
        prompt: what to draw.
        steps: T.
        guidance: scale of classifier-free guidance.
        seed: of the noise.
        encode: further arguments of `encode_prompt`.

    Returns:
        the latent, (1, C, H, W).
    """
    text, no_text, pooled, no_pooled = pipe.encode_prompt(prompt, None, None, **encode)
    text, pooled = torch.cat([no_text, text]), torch.cat([no_pooled, pooled])  # (2, n, width), (2, width)

    side = pipe.default_sample_size
    shape = (1, pipe.transformer.config.in_channels, side, side)
    latent = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=text.dtype).to(text.device)

    pipe.scheduler.set_timesteps(steps, device=latent.device)
    for time in pipe.scheduler.timesteps:
        inputs = {"encoder_hidden_states": text, "pooled_projections": pooled, "timestep": time.expand(2)}
        both = pipe.transformer(torch.cat([latent] * 2), **inputs, return_dict=False)[0]
        without, with_prompt = both.chunk(2)
        noise = without + guidance * (with_prompt - without)
        latent = pipe.scheduler.step(noise, time, latent, return_dict=False)[0]
    return latent


def decode(pipe: Any, latent: Tensor) -> Any:
    """The latent as a picture."""
    scaled = latent / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor
    with torch.no_grad():
        return pipe.image_processor.postprocess(pipe.vae.decode(scaled, return_dict=False)[0])[0]


if __name__ == "__main__":
    pipe = hybridstitch.open_pair("mini", policy="L10 H15@0.3 S25")
    prompt = sys.argv[1] if len(sys.argv) > 1 else "a big dog on a meadow"
    decode(pipe, draw(pipe, prompt, max_sequence_length=0)).save("own_loop.png")
    print(pipe.transformer.trace.summary())
