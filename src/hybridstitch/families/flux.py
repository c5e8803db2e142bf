"""FLUX.1: latents packed to tokens, text first in every attention, RoPE, guidance embedded.

Drawn tokens are given to the transformer as its picture; its position table stays that of all tokens, and every
attention takes the rows it needs, so that each image of a batch may draw other tokens.
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.transformers.transformer_flux import FluxAttention, FluxAttnProcessor
from torch import Tensor

from ..policies.latency import Shape
from .attached import Attached
from .family import CONTROLNET, Config, Facts, Inputs
from .layout import Layout
from .lent import Lent
from .packed import gathered, placed, side
from .rotary import Table, turned


class RotaryAttention(Lent):
    """The stock attention of double and single blocks."""

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
        text = encoder_hidden_states.shape[1]
        image = attn.to_out[1](attn.to_out[0](mixed[:, text:].contiguous()))  # contiguous: part of bit-exactness
        return image, attn.to_add_out(mixed[:, :text].contiguous())


def shape(config: Config, tokens: int, text: int) -> Shape:
    """Cost by a configuration; a single block costs what a joint one does for as many tokens."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    layers = config["num_layers"] + config["num_single_layers"]
    return Shape(width=width, layers=layers, image_tokens=tokens, text_tokens=text)


class FluxFamily(Attached):
    """See `family.Family`."""

    stock = (FluxAttnProcessor,)
    fusible = True
    facts = Facts(
        name="FluxTransformer2DModel",
        layout=lambda config: Layout((1,), (1,)),
        same={
            "in_channels": "latent channels",
            "out_channels": "predicted channels",
            "axes_dims_rope": "position axes",
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
        tokens=lambda config, vae, size: (size[0] // side(vae)) * (size[1] // side(vae)),
        native=lambda config, vae: (1024, 1024),
        multiple=lambda config, vae: (side(vae),) * 2,
    )

    def attentions(self) -> Mapping[str, Any]:
        """See `Attached`."""
        return {name: module for name, module in self.transformer.named_modules() if isinstance(module, FluxAttention)}

    def processor(self) -> Lent:
        """See `Attached`."""
        return RotaryAttention()

    def keys(self, inputs: Inputs) -> int:
        """Text and image."""
        return inputs["encoder_hidden_states"].shape[1] + inputs["hidden_states"].shape[1]

    def some(self, inputs: Inputs, tokens: Tensor, text: str) -> tuple[Inputs, Tensor]:
        """See `Attached`."""
        latent, words = inputs["hidden_states"], inputs["encoder_hidden_states"]
        positions = tokens + words.shape[1]
        if text == "cached":
            words = words[:, :0]
        before = torch.arange(words.shape[1], device=tokens.device).expand(len(tokens), -1)
        given = {**inputs, "hidden_states": gathered(latent, tokens), "encoder_hidden_states": words}
        return given, torch.cat([before, positions], dim=1)

    def whole(self, drawn: Tensor, inputs: Inputs, tokens: Tensor) -> Tensor:
        """See `Attached`."""
        return placed(drawn, tokens, inputs["hidden_states"].shape[1])

    def grid(self, inputs: Inputs) -> tuple[int, ...] | Tensor:
        """Rows and columns, by the last token's."""
        return inputs["img_ids"][-1, 1:].long() + 1
