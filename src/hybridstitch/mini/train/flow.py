"""The transformers: flow matching as Stable Diffusion 3 does it, on the pool's latents.

x_t = (1 - sigma) x_0 + sigma eps, target eps - x_0 (or what a teacher predicts), timestep 1000 sigma;
x_0 = (latent - shift) * scale.
sigma is the logistic of a normal variable, moved towards noise like the sampler's schedule. A tenth of
the captions become "", which is what guidance is measured against. A training-only head on the middle
block names the object each token will hold; that ties words to places early.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModelWithProjection

from ..parts import tokenizer
from ..scenes import Scene
from ..words import OBJECTS
from .data import ScenePool, tokens

DROP = 0.1  # share of captions replaced by ""
SHIFT = 2.5  # of the training noise levels
HEAD_WEIGHT = 0.1


@torch.no_grad()
def encode_text(encoders: Sequence[CLIPTextModelWithProjection], ids: Tensor) -> tuple[Tensor, Tensor]:
    """What the stock pipeline hands the transformer, without T5: (B, 24, 256) and pooled (B, 256)."""
    states = [encoder(ids, output_hidden_states=True) for encoder in encoders]
    words = torch.cat([state.hidden_states[-2] for state in states], dim=-1)
    return words, torch.cat([state.text_embeds for state in states], dim=-1)


def start_at_zero(model: SD3Transformer2DModel) -> None:
    """Zero the modulation of every block and the output, so that each block begins as the identity."""
    layers = [model.norm_out.linear, model.proj_out]
    for block in model.transformer_blocks:
        layers += [block.norm1.linear, block.norm1_context.linear]  # pyright: ignore
    for layer in layers:
        nn.init.zeros_(layer.weight)  # pyright: ignore
        nn.init.zeros_(layer.bias)  # pyright: ignore


class FlowTask:
    """Trains one transformer on the pool; encoders and autoencoder stay as they are."""

    def __init__(
        self,
        model: SD3Transformer2DModel,
        pool: ScenePool,
        encoders: Sequence[CLIPTextModelWithProjection],
        vae: AutoencoderKL,
        device: torch.device,
        compile: bool = False,
        teacher: SD3Transformer2DModel | None = None,
    ) -> None:
        """On a pool.

        Args:
            model: what is trained.
            pool: encoded scenes.
            encoders: of captions, of the pair.
            vae: whose scale and shift the latents have.
            device: where.
            compile: the model's blocks.
            teacher: a model whose velocity is learned instead of noise minus picture.
        """
        self.pool, self.device, self.teacher = pool, device, teacher
        self.encoders = [encoder.to(device).eval() for encoder in encoders]  # pyright: ignore[reportArgumentType]
        self.words = tokenizer()
        self.scale, self.shift = vae.config.scaling_factor, vae.config.shift_factor  # pyright: ignore
        self.modules = nn.ModuleDict({"model": model, "head": nn.Linear(model.inner_dim, 1 + len(OBJECTS))})
        self.middle: list[Tensor] = []
        middle = model.transformer_blocks[len(model.transformer_blocks) // 2]
        middle.register_forward_hook(lambda _, __, output: self.middle.append(output[1]))
        if compile:
            for block in model.transformer_blocks:
                block.compile()

    def loss(self, rng: np.random.Generator, batch: int) -> tuple[Tensor, dict[str, float]]:
        """Flow-matching loss of one batch, and the head's."""
        rows = np.sort(rng.integers(len(self.pool), size=batch))
        latents = torch.from_numpy(self.pool.latents[rows].astype(np.float32)).to(self.device)
        layouts = torch.from_numpy(self.pool.layouts[rows].astype(np.int64)).to(self.device).flatten()
        captions = [Scene.from_key(self.pool.keys[row]).caption(rng) for row in rows]
        dropped = rng.random(batch) < DROP
        captions = ["" if drop else text for drop, text in zip(dropped, captions, strict=True)]
        words, pooled = encode_text(self.encoders, tokens(self.words, captions).to(self.device))
        clean = (latents - self.shift) * self.scale  # (B, 16, 32, 32)
        even = torch.randn(batch, device=self.device).sigmoid()
        sigma = SHIFT * even / (1 + (SHIFT - 1) * even)  # (B,)
        noise = torch.randn_like(clean)
        mixed = torch.lerp(clean, noise, sigma[:, None, None, None])
        given = {
            "hidden_states": mixed, "encoder_hidden_states": words, "pooled_projections": pooled,
            "timestep": 1000 * sigma, "return_dict": False,
        }  # fmt: skip
        target = noise - clean
        if self.teacher is not None:
            with torch.no_grad():
                target = self.teacher(**given)[0].float()
        self.middle.clear()
        made = self.modules["model"](**given)[0]
        flow = (made.float() - target).square().mean()
        named = self.modules["head"](self.middle.pop()).flatten(0, 1).float()
        kept = torch.from_numpy(~dropped).to(self.device).repeat_interleave(layouts.numel() // batch)
        head = F.cross_entropy(named[kept], layouts[kept])
        return flow + HEAD_WEIGHT * head, {"flow": float(flow.detach()), "head": float(head.detach())}
