"""The honest in-domain score: a miniature CLIP that never saw a generated picture, and retrieval with it.

A picture is right if its own caption scores highest among `n`. The n - 1 others are either "near", scenes
that differ from its own in one respect, or "far", other held-out scenes. Scores are cosines in [-1, 1];
features are unit vectors (B, 128) float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection

from . import weights_dir
from .scenes import SIDE, Scene

Others = Literal["near", "far"]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A share with its 95 % bootstrap interval, over `count` pictures."""

    share: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.share:.3f} [{self.low:.3f}, {self.high:.3f}]"


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

    def hits(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        n: int = 100,
        seed: int = 0,
        others: Others = "near",
    ) -> np.ndarray:
        """For each picture, whether its prompt beats n - 1 captions of other scenes (B,) bool."""
        pictures, own = self.image_features(images), self.text_features(prompts)
        rows = distractors(prompts, n - 1, seed, others)
        features = self.text_features([text for row in rows for text in row])
        features = features.unflatten(0, (len(prompts), n - 1))  # (B, n - 1, 128)
        best_other = torch.einsum("bd,bnd->bn", pictures, features).amax(1)
        return ((pictures * own).sum(-1) > best_other).cpu().numpy()

    def retrieval(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        n: int = 100,
        seed: int = 0,
        others: Others = "near",
    ) -> Accuracy:
        """Share of pictures whose own prompt scores highest among `n`, with a 95 % bootstrap interval."""
        return interval(self.hits(images, prompts, n, seed, others))


def distractors(prompts: Sequence[str], count: int, seed: int = 0, others: Others = "near") -> list[list[str]]:
    """For each prompt, `count` captions of other scenes. The same for the same arguments."""
    if others not in get_args(Others):
        raise ValueError(f"no distractors {others!r}; there are {', '.join(get_args(Others))}")
    rows = []
    for place, prompt in enumerate(prompts):
        rng = np.random.default_rng((seed, place))
        scene = Scene.parse(prompt)
        found: dict[str, str] = {}
        while len(found) < count:
            other = scene.altered(rng) if others == "near" else Scene.sample(rng, "heldout")
            if len(found) >= 69 and len(scene.things) == 1:  # one object has 59 + 9 + 1 near misses
                other = other.altered(rng)
            if other != scene:
                found.setdefault(other.key, other.caption(rng))
        rows.append(list(found.values()))
    return rows


def interval(values: np.ndarray, draws: int = 10_000, seed: int = 0) -> Accuracy:
    """The mean of `values` with its 95 % percentile bootstrap interval."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(draws, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Accuracy(float(values.mean()), float(low), float(high), len(values))


def _pixels(images: Sequence[Image.Image]) -> Tensor:
    array = np.stack([np.asarray(image.convert("RGB").resize((SIDE, SIDE))) for image in images])
    return torch.from_numpy(array).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)  # (B, 3, 128, 128)
