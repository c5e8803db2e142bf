"""The judge: the miniature CLIP made strict enough to tell near misses apart.

The text encoders stay as the transformers know them; the picture tower goes on learning, and one matrix
joins both encoders' projections into the caption's feature. Batches are groups of a scene and its near
misses, and each picture must also beat captions of its scene with one object replaced, half of the time by
one that the tower takes it for most easily before it learns on. Pictures are true scenes only: the judge
never sees a drawn one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from ..parts import TEXT_WIDTH, tokenizer
from ..scenes import Scene, Thing
from ..words import OBJECTS, SIZES
from .clip import altered
from .data import draw, to_tensor, tokens

GROUP = 4  # a scene and three near misses
OTHERS = 8  # captions beside each picture that name one other object
ALIKE = 6  # objects that are most easily taken for one


def recast(scene: Scene, rng: np.random.Generator, alike: Mapping[str, Sequence[str]]) -> Scene:
    """A training scene with one object replaced, half of the time by one that it is easily taken for."""
    while True:
        place = int(rng.integers(len(scene.things)))
        among = alike[scene.things[place].name] if rng.random() < 0.5 else tuple(OBJECTS)
        if (other := scene.recast(rng, place, among=among)).split == "train":
            return other


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
        self.alike: dict[str, tuple[str, ...]] = {}

    @torch.no_grad()
    def find_alike(self) -> None:
        """For each object the others whose captions come nearest to its pictures, by the weights as they are now."""
        self.modules.to(self.device).eval()
        lone = [Scene((Thing(name, size),), "alone", "meadow") for size in SIZES for name in OBJECTS]
        images = [draw(scene, np.random.default_rng(0))[0] for scene in lone]
        seen = F.normalize(self.modules["image"](to_tensor(images).to(self.device)).image_embeds.float(), dim=-1)
        logits = seen @ self.captions([scene.caption() for scene in lone]).T  # (120, 120)
        names = tuple(OBJECTS)
        near = torch.stack([part.chunk(2, dim=1)[k] for k, part in enumerate(logits.chunk(2))]).mean(0)  # (60, 60)
        order = near.fill_diagonal_(-torch.inf).argsort(dim=1, descending=True)[:, :ALIKE].tolist()
        self.alike = {name: tuple(names[other] for other in row) for name, row in zip(names, order, strict=True)}

    def loss(self, rng: np.random.Generator, batch: int) -> tuple[Tensor, dict[str, float]]:
        """Contrastive loss of one batch of groups."""
        scenes: list[Scene] = []
        for _ in range(batch // GROUP):
            scene = Scene.sample(rng)
            scenes += [scene, *(altered(scene, rng) for _ in range(GROUP - 1))]
        images, _ = zip(*(draw(scene, rng) for scene in scenes), strict=True)
        others = [recast(scene, rng, self.alike) for scene in scenes for _ in range(OTHERS)]
        captions = self.captions([scene.caption(rng) for scene in scenes + others])
        captions, wrong = captions[:batch], captions[batch:].unflatten(0, (-1, OTHERS))  # (B, 128), (B, 8, 128)
        seen = self.modules["image"](to_tensor(list(images)).to(self.device)).image_embeds.float()
        pictures = self.modules.scale.exp().clamp(max=100) * F.normalize(seen, dim=-1)  # pyright: ignore
        logits = pictures @ captions.T  # (B, B)
        against = torch.cat([logits, torch.einsum("bd,bnd->bn", pictures, wrong)], dim=1)  # (B, B + 8)
        keys = np.array([scene.key for scene in scenes])
        same = torch.from_numpy(keys[:, None] == keys[None]).to(self.device).float()
        goal = same / same.sum(1, keepdim=True)
        loss = F.cross_entropy(against, F.pad(goal, (0, OTHERS))) / 2 + F.cross_entropy(logits.T, goal) / 2
        right = float(F.pad(same, (0, OTHERS)).gather(1, against.argmax(1, keepdim=True)).mean())
        return loss, {"right": right}

    def captions(self, texts: list[str]) -> Tensor:
        """Unit features of captions (B, 128)."""
        ids = tokens(self.words, texts).to(self.device)
        with torch.no_grad():
            both = torch.cat([encoder(ids).text_embeds for encoder in self.encoders], dim=-1).float()
        return F.normalize(self.modules["join"](both).float(), dim=-1)
