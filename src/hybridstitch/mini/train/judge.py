"""The judge: the miniature CLIP made strict enough to tell near misses apart.

The text encoders stay as the transformers know them; the picture tower goes on learning, and one matrix
joins both encoders' projections into the caption's feature. Batches are groups of a scene and its near
misses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from ..parts import TEXT_WIDTH, tokenizer
from ..scenes import Scene
from .clip import altered
from .data import draw, to_tensor, tokens

GROUP = 4  # a scene and three near misses


class JudgeTask:
    """Trains the picture tower and the matrix that joins the text encoders."""

    def __init__(
        self,
        tower: CLIPVisionModelWithProjection,
        encoders: Sequence[CLIPTextModelWithProjection],
        device: torch.device,
    ) -> None:
        self.device, self.words, self.encoders = device, tokenizer(), encoders
        join = nn.Linear(2 * TEXT_WIDTH, TEXT_WIDTH, bias=False)
        with torch.no_grad():
            join.weight.copy_(torch.cat([torch.eye(TEXT_WIDTH)] * 2, dim=1) / 2)
        self.modules = nn.ModuleDict({"image": tower, "join": join})
        self.modules.register_parameter("scale", nn.Parameter(torch.tensor(3.3)))  # log of the logits' scale

    def loss(self, rng: np.random.Generator, batch: int) -> tuple[Tensor, dict[str, float]]:
        """Contrastive loss of one batch of groups."""
        scenes: list[Scene] = []
        for _ in range(batch // GROUP):
            scene = Scene.sample(rng)
            scenes += [scene, *(altered(scene, rng) for _ in range(GROUP - 1))]
        images, _ = zip(*(draw(scene, rng) for scene in scenes), strict=True)
        ids = tokens(self.words, [scene.caption(rng) for scene in scenes]).to(self.device)
        with torch.no_grad():
            texts = torch.cat([encoder(ids).text_embeds for encoder in self.encoders], dim=-1).float()
        seen = self.modules["image"](to_tensor(list(images)).to(self.device)).image_embeds.float()
        captions = F.normalize(self.modules["join"](texts).float(), dim=-1)  # (B, 128)
        logits = self.modules.scale.exp().clamp(max=100) * F.normalize(seen, dim=-1) @ captions.T  # pyright: ignore
        keys = np.array([scene.key for scene in scenes])
        same = torch.from_numpy(keys[:, None] == keys[None]).to(self.device).float()
        goal = same / same.sum(1, keepdim=True)
        loss = F.cross_entropy(logits, goal) / 2 + F.cross_entropy(logits.T, goal) / 2
        right = float(same.gather(1, logits.argmax(1, keepdim=True)).mean())
        return loss, {"right": right}
