"""FLUX.1: latents packed to tokens, RoPE, guidance embedded; double blocks with text beside, single ones with all."""

from typing import Any

import torch
from diffusers.models.transformers.transformer_flux import FluxAttention, FluxAttnProcessor
from torch import Tensor

from ..policies.latency import Shape
from .classes import LATENT, by_ids, packed
from .family import CONTROLNET, Config, Facts
from .lent import Lent
from .packed import Packed, multiple, tokens
from .rotary import Table, turned


class RotaryAttention(Lent):
    """The stock attention of double and single blocks."""

    def __init__(self, *, contiguous: bool = True) -> None:
        """Start with nothing lent.

        Args:
            contiguous: whether image and text lie side by side in memory before they leave: part of bit-exactness.
        """
        super().__init__()
        self.contiguous = contiguous

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Table | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend; as the stock processor: (R, n, D) picture, (R, T, D) text, both in one in single blocks."""
        query = attn.norm_q(attn.to_q(hidden_states).unflatten(-1, (-1, attn.head_dim)))  # (R, n, heads, width)
        key = attn.norm_k(attn.to_k(hidden_states).unflatten(-1, (-1, attn.head_dim)))
        value = attn.to_v(hidden_states).unflatten(-1, (-1, attn.head_dim))
        if encoder_hidden_states is not None:
            text_query = attn.add_q_proj(encoder_hidden_states).unflatten(-1, (-1, attn.head_dim))
            text_key = attn.add_k_proj(encoder_hidden_states).unflatten(-1, (-1, attn.head_dim))
            text_value = attn.add_v_proj(encoder_hidden_states).unflatten(-1, (-1, attn.head_dim))
            query = torch.cat([attn.norm_added_q(text_query), query], dim=1)
            key = torch.cat([attn.norm_added_k(text_key), key], dim=1)
            value = torch.cat([text_value, value], dim=1)
        if image_rotary_emb is not None:
            query, key = (turned(tensor, image_rotary_emb, self.positions) for tensor in (query, key))
        mixed = self.attend(query, key, value).flatten(2, 3).to(query.dtype)
        if encoder_hidden_states is None:
            return mixed
        text, image = mixed.tensor_split([encoder_hidden_states.shape[1]], dim=1)
        if self.contiguous:
            text, image = text.contiguous(), image.contiguous()
        return attn.to_out[1](attn.to_out[0](image)), attn.to_add_out(text)


def shape(config: Config, tokens: int, text: int) -> Shape:
    """Cost by a configuration; a single block costs what a joint one does for as many tokens."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    layers = config["num_layers"] + config["num_single_layers"]
    return Shape(
        width=width, layers=layers, image_tokens=tokens, text_tokens=text, held=(7, 15), rounded=(3, 3)
    )  # fmt: skip


class FluxFamily(Packed):
    """See `family.Family`."""

    kinds = (FluxAttention,)
    stock = (FluxAttnProcessor,)
    fusible = True
    facts = Facts(
        name="FluxTransformer2DModel",
        layout=packed,
        same={
            **LATENT,
            "axes_dims_rope": "position axes",
            "guidance_embeds": "guidance as an input",
            "joint_attention_dim": "text width",
            "pooled_projection_dim": "pooled text width",
        },
        words=frozenset({"joint_attention_dim", "pooled_projection_dim"}),
        shared=frozenset({"img_ids", "txt_ids", "joint_attention_kwargs"}),
        refused=dict.fromkeys(("controlnet_block_samples", "controlnet_single_block_samples"), CONTROLNET),
        blocks=("FluxTransformerBlock", "FluxSingleTransformerBlock"),
        masks=True,
        text=512,
        shape=shape,
        tokens=tokens,
        native=lambda config, vae: (1024, 1024),
        multiple=multiple,
        grid=by_ids,
        guided=lambda config: (1, 1),
    )

    def processor(self, attention: Any) -> Lent:
        """See `Attached`."""
        return RotaryAttention()
