"""The honest in-domain score: a miniature CLIP that never saw a drawn picture, and retrieval with it.

A picture is right if its own caption scores highest among `n`. What the n - 1 others say sets the question:

    far      other held-out scenes: anything right in the picture helps
    objects  the same places, sizes and background with other objects: some object must be right
    object   the same with one object replaced: every object must be right
    near     the scene with one respect changed: every object, size and place must be right

Scores are cosines in [-1, 1]; features are unit vectors (B, 128) float32. For retrieval all captions have the canonical
wording, and a picture's feature is the mean over small shifts: what is asked is what the picture shows, not how the
prompt is worded or where the tower's patches fall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection

from ..measure.intervals import Interval, share_interval
from . import weights_dir
from .scenes import SIDE, Scene
from .words import OBJECTS

Others = Literal["object", "objects", "near", "far"]

SHIFTS = (-3, -1, 0, 1, 3)  # pixels, across and down; a scene's own jitter reaches as far


@dataclass(frozen=True, slots=True)
class MiniClip:
    """The miniature CLIP: a picture tower, and the pipeline's text encoders joined by one matrix."""

    tower: CLIPVisionModelWithProjection
    encoders: tuple[CLIPTextModelWithProjection, ...]
    join: Tensor  # (128, 256)
    words: CLIPTokenizer

    @classmethod
    def load(cls, folder: Path | None = None, device: str | torch.device = "cpu") -> Self:
        """From a pipeline folder with `clip/`; by default the shipped weights."""
        folder = folder or weights_dir()
        tower = CLIPVisionModelWithProjection.from_pretrained(folder / "clip", dtype=torch.float32)
        encoders = []
        for name in ("text_encoder", "text_encoder_2"):
            encoder = CLIPTextModelWithProjection.from_pretrained(folder / name, dtype=torch.float32)
            encoders.append(encoder.to(device).eval())  # pyright: ignore
        join = load_file(folder / "clip/join.safetensors")["weight"].float().to(device)
        words = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        return cls(tower.to(device).eval(), tuple(encoders), join, words)  # pyright: ignore

    @torch.inference_mode()
    def image_features(self, images: Sequence[Image.Image], batch: int = 64) -> Tensor:
        """Unit features of pictures (B, 128)."""
        features = []
        for start in range(0, len(images), batch):
            pixels = _pixels(images[start : start + batch]).to(self.tower.device)
            features.append(F.normalize(self.tower(pixels).image_embeds, dim=-1))
        return torch.cat(features)

    @torch.inference_mode()
    def steady_features(self, images: Sequence[Image.Image], batch: int = 64) -> Tensor:
        """Unit features of pictures, the mean over 25 shifts of at most 3 pixels (B, 128)."""
        reach, features = max(SHIFTS), []
        for start in range(0, len(images), batch):
            pixels = _pixels(images[start : start + batch]).to(self.tower.device)
            wide = F.pad(pixels, (reach,) * 4, mode="replicate")  # (B, 3, 134, 134)
            shifted = (wide[..., reach + y :, reach + x :][..., :SIDE, :SIDE] for y in SHIFTS for x in SHIFTS)
            mean = torch.stack([F.normalize(self.tower(part).image_embeds, dim=-1) for part in shifted]).mean(0)
            features.append(F.normalize(mean, dim=-1))
        return torch.cat(features)

    @torch.inference_mode()
    def text_features(self, prompts: Sequence[str], batch: int = 256) -> Tensor:
        """Unit features of captions (B, 128)."""
        features = []
        for start in range(0, len(prompts), batch):
            ids = self.words(
                list(prompts[start : start + batch]),
                padding="max_length",
                max_length=self.words.model_max_length,
                truncation=True,
                return_tensors="pt",
            ).input_ids.to(self.join.device)
            both = torch.cat([encoder(ids).text_embeds for encoder in self.encoders], dim=-1)  # (B, 256)
            features.append(F.normalize(both @ self.join.T, dim=-1))
        return torch.cat(features)

    def scores(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """The cosine of each picture with its own prompt (B,)."""
        return (self.image_features(images) * self.text_features(prompts)).sum(-1)

    def choices(self, prompts: Sequence[str], n: int = 100, seed: int = 0, others: Others = "object") -> Tensor:
        """Features of what each prompt says, first, and of the n - 1 captions it has to beat (B, n, 128)."""
        rows = distractors(prompts, n - 1, seed, others)
        own = [Scene.parse(prompt).caption() for prompt in prompts]
        texts = [text for caption, row in zip(own, rows, strict=True) for text in (caption, *row)]
        return self.text_features(texts).unflatten(0, (len(prompts), n))

    def hits(self, images: Sequence[Image.Image], choices: Tensor) -> NDArray[np.bool_]:
        """Whether each picture fits its own prompt best of its `choices` (B,)."""
        scores = torch.einsum("bd,bnd->bn", self.steady_features(images), choices)
        return (scores[:, 0] > scores[:, 1:].amax(1)).cpu().numpy()

    def retrieval(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        n: int = 100,
        seed: int = 0,
        others: Others = "object",
    ) -> Interval:
        """Share of pictures whose own prompt scores highest among `n`, with its 95 % interval."""
        return share_interval(self.hits(images, self.choices(prompts, n, seed, others)).tolist())


def distractors(prompts: Sequence[str], count: int, seed: int = 0, others: Others = "object") -> list[list[str]]:
    """For each prompt, `count` captions of other scenes, in canonical words. The same for the same arguments."""
    if others not in get_args(Others):
        raise ValueError(f"no distractors {others!r}; there are {', '.join(get_args(Others))}")
    rows = []
    for place, prompt in enumerate(prompts):
        rng = np.random.default_rng((seed, place))
        scene = Scene.parse(prompt)
        found: dict[str, str] = {}
        while len(found) < count:
            other = _other(scene, rng, others, len(found))
            if other != scene:
                found.setdefault(other.key, other.caption())
        rows.append(list(found.values()))
    return rows


def _other(scene: Scene, rng: np.random.Generator, others: Others, found: int) -> Scene:
    """One more scene; a lone object runs out of them and goes on with a second change."""
    alone = len(scene.things) == 1
    match others:
        case "far":
            return Scene.sample(rng, "heldout")
        case "near":  # one object has 59 + 9 + 1 near misses
            other = scene.altered(rng)
            return other.altered(rng) if alone and found >= 69 else other
        case _:
            places = range(len(scene.things)) if others == "objects" else (int(rng.integers(len(scene.things))),)
            other = scene.recast(rng, *places)
            if alone and found >= len(OBJECTS) - 1:
                thing = other.things[0]
                size = "small" if thing.size == "big" else "big"
                other = replace(other, things=(replace(thing, size=size),))
            return other


def _pixels(images: Sequence[Image.Image]) -> Tensor:
    array = np.stack([np.asarray(image.convert("RGB").resize((SIDE, SIDE))) for image in images])
    return torch.from_numpy(array).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)  # (B, 3, 128, 128)
