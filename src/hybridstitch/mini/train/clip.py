"""The miniature CLIP: one picture tower, two text encoders, matched contrastively on scenes and their
captions.

Half of each batch are scenes, the other half the same scenes with one thing changed (an object, a size,
the order, the place, the background), so that word order and small differences count. A training-only
head names the object under each patch, which teaches the picture tower its objects early.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..parts import image_tower, text_encoder, tokenizer
from ..scenes import Scene, Split
from ..words import OBJECTS
from .data import draw, to_tensor, tokens

CELLS = 8  # patches a side
HEAD_WEIGHT = 0.5


def altered(scene: Scene, rng: np.random.Generator) -> Scene:
    """A training scene that differs from `scene` in one respect."""
    while (other := scene.altered(rng)).split != "train":
        pass
    return other


class ClipTask:
    """Trains a picture tower and two text encoders together."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.words = tokenizer()
        tower = image_tower()
        self.modules = nn.ModuleDict(
            {
                "image": tower,
                "text": text_encoder(self.words),
                "text_2": text_encoder(self.words),
                "head": nn.Linear(tower.config.hidden_size, 1 + len(OBJECTS)),
            }
        )
        self.modules.register_parameter("scale", nn.Parameter(torch.tensor(2.3)))  # log of the logits' scale

    def loss(self, rng: np.random.Generator, batch: int) -> tuple[Tensor, dict[str, float]]:
        """Contrastive loss of both text encoders, and the head's."""
        scenes = [Scene.sample(rng) for _ in range(batch // 2)]
        scenes += [altered(scene, rng) for scene in scenes]
        images, layouts = zip(*(draw(scene, rng, CELLS) for scene in scenes), strict=True)
        ids = tokens(self.words, [scene.caption(rng) for scene in scenes]).to(self.device)
        seen = self.modules["image"](to_tensor(list(images)).to(self.device))
        patches = seen.last_hidden_state[:, 1:]  # (B, 64, 192)
        maps = torch.from_numpy(np.stack(layouts)).to(self.device).long().flatten()
        named = self.modules["head"](patches).flatten(0, 1).float()
        head = F.cross_entropy(named, maps)
        pictures = F.normalize(seen.image_embeds.float(), dim=-1)  # (B, 128)
        scale = self.modules.scale.exp().clamp(max=100)  # pyright: ignore
        # Two equal scenes in a batch are both right.
        keys = [scene.key for scene in scenes]
        same = torch.tensor([[a == b for b in keys] for a in keys], device=self.device).float()
        goal = same / same.sum(1, keepdim=True)
        contrast, right = torch.zeros((), device=self.device), 0.0
        for name in ("text", "text_2"):
            captions = F.normalize(self.modules[name](ids).text_embeds.float(), dim=-1)  # (B, 128)
            logits = scale * pictures @ captions.T  # (B, B)
            contrast = contrast + F.cross_entropy(logits, goal) / 4 + F.cross_entropy(logits.T, goal) / 4
            right += float((logits.argmax(1) == torch.arange(len(keys), device=self.device)).float().mean()) / 2
        figures = {"contrast": float(contrast.detach()), "head": float(head.detach()), "right": right}
        return contrast + HEAD_WEIGHT * head, figures


@torch.inference_mode()
def retrieval(task: ClipTask, split: Split, batches: int = 5, n: int = 100) -> dict[str, float]:
    """Share of real scenes whose own caption scores highest among `n` of the same split, by text encoder."""
    rng = np.random.default_rng(5)
    right = {"text": 0.0, "text_2": 0.0}
    task.modules.eval()
    for _ in range(batches):
        scenes = [Scene.sample(rng, split) for _ in range(n)]
        pixels = to_tensor([scene.render(rng) for scene in scenes]).to(task.device)
        ids = tokens(task.words, [scene.caption(rng) for scene in scenes]).to(task.device)
        pictures = task.modules["image"](pixels).image_embeds
        for name in right:
            captions = F.normalize(task.modules[name](ids).text_embeds, dim=-1)
            best = (pictures @ captions.T).argmax(1).cpu()
            right[name] += float((best == torch.arange(n)).float().mean()) / batches
    return right
