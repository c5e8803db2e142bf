"""`python -m hybridstitch.mini.show`: held-out prompts at one seed, a row for each method, and the
retrieval table.

A method turns prompts into pictures: `METHODS` names them. "real" is the true scene. A picture's noise
depends on the seed and the place of its prompt only, so every method draws picture i from the same noise.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from PIL import Image, ImageDraw, ImageFont

from . import weights_dir
from .scenes import SIDE, Scene, Split, heldout_prompts
from .score import MiniClip

GUIDANCE = 4.0
NO_T5 = {"text_encoder_3": None, "tokenizer_3": None}  # diffusers wants to be told
MARGIN, HEADER, GAP = 64, 44, 4  # pixels: names at the left, prompts at the top, between pictures

Method = Callable[[list[str], int, int], list[Image.Image]]  # prompts, steps, seed


def draw(
    pipe: StableDiffusion3Pipeline,
    prompts: list[str],
    steps: int,
    seed: int = 0,
    guidance: float = GUIDANCE,
    batch: int = 4,
) -> list[Image.Image]:
    """One 128x128 picture a prompt."""
    pipe.set_progress_bar_config(disable=True)
    images: list[Image.Image] = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        places = range(start, start + len(part))
        noise = [torch.Generator().manual_seed(seed * 100_003 + place) for place in places]
        options = {"num_inference_steps": steps, "guidance_scale": guidance, "max_sequence_length": 0}
        images += pipe(part, generator=noise, **options).images  # pyright: ignore
    return images


def real(prompts: list[str], steps: int, seed: int) -> list[Image.Image]:
    """The true scenes, in their canonical layout."""
    return [Scene.parse(prompt).render() for prompt in prompts]


def shipped(size: str, prompts: list[str], steps: int, seed: int, folder: Path | None = None) -> list[Image.Image]:
    """Pictures of the large or the small transformer in `folder` (by default the shipped weights)."""
    folder = folder or weights_dir()
    pipe = StableDiffusion3Pipeline.from_pretrained(folder, dtype=torch.float32, **NO_T5)
    if size == "small":
        pipe.transformer = SD3Transformer2DModel.from_pretrained(folder / "small", dtype=torch.float32)
    return draw(pipe, prompts, steps, seed)


METHODS: dict[str, Method] = {
    "real": real,
    "large": partial(shipped, "large"),
    "small": partial(shipped, "small"),
}


def grid(prompts: list[str], rows: dict[str, list[Image.Image]]) -> Image.Image:
    """A labelled sheet: a column for each prompt, a row for each method."""
    step = SIDE + GAP
    sheet = Image.new("RGB", (MARGIN + step * len(prompts), HEADER + step * len(rows)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for column, prompt in enumerate(prompts):
        text = "\n".join(textwrap.wrap(prompt, 24)[:3])
        pen.multiline_text((MARGIN + column * step, 2), text, "black", font, spacing=2)
    for row, (name, images) in enumerate(rows.items()):
        pen.text((4, HEADER + row * step + SIDE // 2), name, "black", font)
        for column, image in enumerate(images):
            sheet.paste(image, (MARGIN + column * step, HEADER + row * step))
    return sheet


def table(names: Iterable[str], steps: int, count: int, seed: int, splits: Iterable[Split]) -> dict[str, dict]:
    """Retrieval accuracy (right caption among 100) of each method on each split."""
    clip, rows = MiniClip.load(), {}
    for split in splits:
        prompts = heldout_prompts(count, seed=1000 + seed, split=split)
        for name in names:
            images = METHODS[name](prompts, steps, seed)
            near, far = (clip.retrieval(images, prompts, others=others) for others in ("near", "far"))
            cosine = float(clip.scores(images, prompts).mean())
            rows[f"{split}/{name}"] = {"near": asdict(near), "far": asdict(far), "cosine": cosine}
            print(f"{split:13} {name:8} near {near}  far {far}  cosine {cosine:.3f}", flush=True)
    return rows


def main() -> None:
    """Draw the grid, and score the methods if asked to."""
    parser = argparse.ArgumentParser(prog="python -m hybridstitch.mini.show", description=__doc__)
    parser.add_argument("--methods", default="real,large,small", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--prompts", type=int, default=8, help="columns of the grid")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", default="heldout", choices=["heldout", "unseen_pairs"])
    parser.add_argument("--out", type=Path, default=Path("miniature.png"))
    parser.add_argument("--score", type=int, default=0, metavar="N", help="also score N pictures a method and split")
    args = parser.parse_args()
    names = args.methods.split(",")
    if strange := [name for name in names if name not in METHODS]:
        parser.error(f"no method {', '.join(strange)}; there are {', '.join(METHODS)}")
    prompts = heldout_prompts(args.prompts, args.seed, args.split)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if prompts:
        grid(prompts, {name: METHODS[name](prompts, args.steps, args.seed) for name in names}).save(args.out)
        print(args.out)
    if args.score:
        rows = table(names, args.steps, args.score, args.seed, ("heldout", "unseen_pairs"))
        note = {"steps": args.steps, "seed": args.seed, "guidance": GUIDANCE, "rows": rows}
        args.out.with_suffix(".json").write_text(json.dumps(note, indent=1) + "\n")


if __name__ == "__main__":
    main()
