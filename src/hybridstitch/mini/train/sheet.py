"""A sheet of samples: held-out prompts at one seed, drawn by a pipeline. Looked at during training."""

from __future__ import annotations

import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image

from ..scenes import SIDE, Scene, heldout_prompts

COLUMNS = 8


def draw(pipe: StableDiffusion3Pipeline, prompts: list[str], steps: int, seed: int = 0, guidance: float = 4.0) -> list[Image.Image]:
    """One picture a prompt; the noise of each depends on the seed and its place only."""
    pipe.set_progress_bar_config(disable=True)
    images: list[Image.Image] = []
    for place, prompt in enumerate(prompts):
        images += pipe(
            prompt,
            num_inference_steps=steps,
            guidance_scale=guidance,
            max_sequence_length=0,
            generator=torch.Generator().manual_seed(seed * 100_003 + place),
        ).images  # pyright: ignore
    return images


def sample_sheet(pipe: StableDiffusion3Pipeline, prompts: int = 16, steps: int = 20) -> Image.Image:
    """True scenes above, samples below, `COLUMNS` a row."""
    texts = heldout_prompts(prompts)
    rows = -(-prompts // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * SIDE, 2 * rows * SIDE))
    both = [Scene.parse(text).render() for text in texts], draw(pipe, texts, steps)
    for half, images in enumerate(both):
        for place, image in enumerate(images):
            row, column = divmod(place, COLUMNS)
            sheet.paste(image, (column * SIDE, (2 * row + half) * SIDE))
    return sheet
