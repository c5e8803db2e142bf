"""Held-out prompts and what becomes of them, on one sheet: a row for each method, a column for each prompt.

`benchmarks/miniature.py` shows the shipped pair with it, the training loop the state of a run.
"""

from __future__ import annotations

import textwrap

import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image, ImageDraw, ImageFont

from .scenes import SIDE, Scene

GUIDANCE = 4.0
MARGIN, LINE, GAP = 64, 13, 4  # pixels: names at the left, lines of prompts at the top, between pictures


def draw(
    pipe: StableDiffusion3Pipeline,
    prompts: list[str],
    steps: int,
    seed: int = 0,
    guidance: float = GUIDANCE,
    batch: int = 4,
) -> list[Image.Image]:
    """One 128x128 picture a prompt; its noise depends on the seed and the place of its prompt only."""
    pipe.set_progress_bar_config(disable=True)
    images: list[Image.Image] = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        places = range(start, start + len(part))
        noise = [torch.Generator().manual_seed(seed * 100_003 + place) for place in places]
        options = {"num_inference_steps": steps, "guidance_scale": guidance, "max_sequence_length": 0}
        images += pipe(part, generator=noise, **options).images  # pyright: ignore
    return images


def real(prompts: list[str]) -> list[Image.Image]:
    """The true scenes, in their canonical layout."""
    return [Scene.parse(prompt).render() for prompt in prompts]


def grid(prompts: list[str], rows: dict[str, list[Image.Image]]) -> Image.Image:
    """A labelled sheet: a column for each prompt, a row for each method."""
    step = SIDE + GAP
    texts = [textwrap.wrap(prompt.replace(" ,", ","), 24) for prompt in prompts]
    header = GAP + LINE * max(map(len, texts))
    sheet = Image.new("RGB", (MARGIN + step * len(prompts), header + step * len(rows)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for column, lines in enumerate(texts):
        for row, line in enumerate(lines):
            pen.text((MARGIN + column * step, 2 + row * LINE), line, "black", font)
    for row, (name, images) in enumerate(rows.items()):
        pen.text((4, header + row * step + SIDE // 2), name, "black", font)
        for column, image in enumerate(images):
            sheet.paste(image, (MARGIN + column * step, header + row * step))
    return sheet
