"""The honest in-domain score: a miniature CLIP that never saw a generated picture, and retrieval with it.

A picture is right if its own caption scores highest among `n` (its own and n - 1 held-out captions of
other scenes). Scores are cosines in [-1, 1]; features are unit vectors (B, 128) float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection

from . import weights_dir
from .scenes import SIDE, Scene, Split, heldout_prompts


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
    """The miniature CLIP: the picture tower, and the pipeline's first text encoder."""

    tower: CLIPVisionModelWithProjection
    encoder: CLIPTextModelWithProjection
    words: CLIPTokenizer

    @classmethod
    def load(cls, folder: Path | None = None, device: str | torch.device = "cpu") -> Self:
        """From a pipeline folder with `clip/`; by default the shipped weights."""
        folder = folder or weights_dir()
        tower = CLIPVisionModelWithProjection.from_pretrained(folder / "clip", dtype=torch.float32)
        encoder = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        words = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        return cls(tower.to(device).eval(), encoder.to(device).eval(), words)  # pyright: ignore

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
            ).input_ids.to(self.encoder.device)
            features.append(F.normalize(self.encoder(ids).text_embeds, dim=-1))
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
        split: Split = "heldout",
    ) -> np.ndarray:
        """For each picture, whether its prompt beats n - 1 captions of other scenes of the split (B,) bool."""
        pictures, own = self.image_features(images), self.text_features(prompts)
        others = distractors(prompts, n - 1, seed, split)
        features = self.text_features([text for row in others for text in row]).unflatten(0, (len(prompts), n - 1))
        best_other = torch.einsum("bd,bnd->bn", pictures, features).amax(1)
        return ((pictures * own).sum(-1) > best_other).cpu().numpy()

    def retrieval(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        n: int = 100,
        seed: int = 0,
        split: Split = "heldout",
    ) -> Accuracy:
        """Share of pictures whose own prompt scores highest among `n`, with a 95 % bootstrap interval."""
        return interval(self.hits(images, prompts, n, seed, split))


def distractors(prompts: Sequence[str], count: int, seed: int, split: Split) -> list[list[str]]:
    """For each prompt, `count` captions of the split that describe other scenes. The same for the same arguments."""
    pool = heldout_prompts(max(10 * count, 1000), seed + 1, split)
    keys = [Scene.parse(text).key for text in pool]
    rng = np.random.default_rng(seed)
    rows = []
    for prompt in prompts:
        key = Scene.parse(prompt).key
        order = [int(place) for place in rng.choice(len(pool), count + 1, replace=False)]
        rows.append([pool[place] for place in order if keys[place] != key][:count])
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
