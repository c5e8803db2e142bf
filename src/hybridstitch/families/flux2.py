"""FLUX.2 dev and klein: as FLUX.1, but single blocks whose projections are also the feed-forward's.

Tokens of reference pictures come behind the picture's and are drawn along with it: dev and klein were trained so.
"""

from typing import Any

import torch
from diffusers.models.transformers.transformer_flux2 import (
    Flux2Attention,
    Flux2AttnProcessor,
    Flux2ParallelSelfAttention,
    Flux2ParallelSelfAttnProcessor,
)
from torch import Tensor

from ..policies.latency import Shape
from .classes import LATENT, by_ids, packed
from .family import Config, Facts
from .flux import RotaryAttention
from .lent import Lent
from .packed import Packed, multiple, tokens
from .rotary import Table, turned

KLEIN_KV = "keys and values of reference pictures were passed (klein-KV), which a stitched model cannot use yet: "


class ParallelAttention(Lent):
    """The stock attention of single blocks, whose feed-forward runs beside it."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Table | None = None,
    ) -> Tensor:
        """Attend; as the stock processor: (R, n, D), text first."""
        projected = attn.to_qkv_mlp_proj(hidden_states)
        mixing, hidden = projected.tensor_split([3 * attn.inner_dim], dim=-1)
        query, key, value = (part.unflatten(-1, (-1, attn.head_dim)) for part in mixing.chunk(3, dim=-1))
        query, key = attn.norm_q(query), attn.norm_k(key)  # (R, n, heads, width)
        if image_rotary_emb is not None:
            query, key = (turned(tensor, image_rotary_emb, self.positions) for tensor in (query, key))
        mixed = self.attend(query, key, value).flatten(2, 3).to(query.dtype)
        return attn.to_out(torch.cat([mixed, attn.mlp_act_fn(hidden)], dim=-1))


def shape(config: Config, tokens: int, text: int) -> Shape:
    """Cost by a configuration; a gated feed-forward has half as much again to do as a plain one of its width."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    layers = config["num_layers"] + config["num_single_layers"]
    return Shape(
        width=width, layers=layers, image_tokens=tokens, text_tokens=text, mlp=1.5 * config["mlp_ratio"],
        held=(12.5, 22.5), rounded=(0.5, 0.5),
    )  # fmt: skip


class Flux2Family(Packed):
    """See `family.Family`."""

    kinds = (Flux2Attention, Flux2ParallelSelfAttention)
    stock = (Flux2AttnProcessor, Flux2ParallelSelfAttnProcessor)
    fusible = True
    facts = Facts(
        name="Flux2Transformer2DModel",
        layout=packed,
        same={**LATENT, "axes_dims_rope": "position axes", "joint_attention_dim": "text width"},
        words=frozenset({"joint_attention_dim"}),
        shared=frozenset({"img_ids", "txt_ids", "joint_attention_kwargs"}),
        refused=dict.fromkeys(("kv_cache", "kv_cache_mode"), f"{KLEIN_KV}unstitch(pipe)"),
        blocks=("Flux2TransformerBlock", "Flux2SingleTransformerBlock"),
        masks=True,
        text=512,
        shape=shape,
        tokens=tokens,
        native=lambda config, vae: (1024, 1024),
        multiple=multiple,
        grid=by_ids,
        guided=lambda config: (1, 1) if config.get("guidance_embeds", True) else (2, 1),  # of dev, of klein
    )

    def processor(self, attention: Any) -> Lent:
        """See `Attached`."""
        return RotaryAttention(contiguous=False) if isinstance(attention, Flux2Attention) else ParallelAttention()
