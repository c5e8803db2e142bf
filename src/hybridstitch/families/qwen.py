"""Qwen-Image and its editions that edit: as FLUX.1, without single blocks, RoPE in complex numbers, padded texts.

Tokens of pictures to edit come behind the picture's and are drawn along with it.
"""

from collections.abc import Iterable
from math import prod
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_qwenimage import QwenDoubleStreamAttnProcessor2_0
from torch import Tensor, nn

from ..policies.latency import Shape
from .classes import LATENT, packed
from .family import CONTROLNET, Config, Facts, Inputs, two_calls
from .lent import Lent
from .packed import Packed
from .rotary import spun

Table = tuple[Tensor, Tensor]  # of image and text, (N or T, width / 2) complex


class PaddedAttention(Lent):
    """The stock attention of image and text, where padded words are not attended to."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        encoder_hidden_states_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Table | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend; as the stock processor: (R, n, D) picture, (R, T, D) text, (R, T) which words are not padded."""
        text, width = encoder_hidden_states.shape[1], attn.inner_dim // attn.heads
        query = attn.norm_q(attn.to_q(hidden_states).unflatten(-1, (-1, width)))  # (R, n, heads, width)
        key = attn.norm_k(attn.to_k(hidden_states).unflatten(-1, (-1, width)))
        value = attn.to_v(hidden_states).unflatten(-1, (-1, width))
        text_query = attn.norm_added_q(attn.add_q_proj(encoder_hidden_states).unflatten(-1, (-1, width)))
        text_key = attn.norm_added_k(attn.add_k_proj(encoder_hidden_states).unflatten(-1, (-1, width)))
        text_value = attn.add_v_proj(encoder_hidden_states).unflatten(-1, (-1, width))
        query, key = torch.cat([text_query, query], dim=1), torch.cat([text_key, key], dim=1)
        if image_rotary_emb is not None:
            table = torch.cat(image_rotary_emb[::-1])
            if self.keys is not None and self.positions is not None:
                table = table[self.positions - self.keys.shape[1]]  # from its end: cached text is not in it
            query, key = spun(query, table), spun(key, table)
        seen = _seen(encoder_hidden_states_mask, hidden_states.shape[1]) if self.positions is None else self.seen
        mixed = self.attend(query, key, torch.cat([text_value, value], dim=1), seen).flatten(2, 3).to(query.dtype)
        image = attn.to_out[1](attn.to_out[0](mixed[:, text:].contiguous()))  # contiguous: part of bit-exactness
        return image, attn.to_add_out(mixed[:, :text].contiguous())


def shape(config: Config, tokens: int, text: int) -> Shape:
    """Cost by a configuration."""
    width, layers = config["num_attention_heads"] * config["attention_head_dim"], config["num_layers"]
    return Shape(width=width, layers=layers, image_tokens=tokens, text_tokens=text, held=(7, 5), rounded=(0, 1))


def side(vae: Config) -> int:
    """Pixels along a token's side."""
    return 2 ** (len(vae["temperal_downsample"]) + 1)


def grid(inputs: Inputs) -> tuple[int, ...]:
    """Rows and columns of the first of an image's shapes, the others being of pictures to edit."""
    shape = inputs["img_shapes"][0]
    return tuple((shape if isinstance(shape, tuple) else shape[0])[-2:])


class QwenFamily(Packed):
    """See `family.Family`."""

    kinds = (Attention,)
    stock = (QwenDoubleStreamAttnProcessor2_0,)
    facts = Facts(
        name="QwenImageTransformer2DModel",
        layout=packed,
        same={**LATENT, "axes_dims_rope": "position axes", "joint_attention_dim": "text width"},
        words=frozenset({"joint_attention_dim"}),
        shared=frozenset({"attention_kwargs"}),
        refused={"controlnet_block_samples": CONTROLNET},
        blocks=("QwenImageTransformerBlock",),
        masks=True,
        text=512,  # at most
        shape=shape,
        tokens=lambda config, vae, size: prod(pixels // side(vae) for pixels in size),
        native=lambda config, vae: (1328, 1328),
        multiple=lambda config, vae: (side(vae),) * 2,
        grid=grid,
        guided=two_calls,
    )

    def processor(self, attention: Any) -> Lent:
        """See `Attached`."""
        return PaddedAttention()

    def hooks(self) -> Iterable[torch.utils.hooks.RemovableHandle]:
        """See `Attached`."""
        for block in self.transformer.transformer_blocks if self.transformer.config.get("zero_cond_t") else ():
            yield block.register_forward_pre_hook(_timed, with_kwargs=True)

    def some(self, inputs: Inputs, tokens: Tensor, text: str) -> tuple[Inputs, Tensor]:
        """See `Attached`."""
        given, positions = super().some(inputs, tokens, text)
        return (given if text == "fresh" else {**given, "encoder_hidden_states_mask": None}), positions

    def seen(self, inputs: Inputs) -> Tensor | None:
        """See `Attached`."""
        return _seen(inputs.get("encoder_hidden_states_mask"), inputs["hidden_states"].shape[1])


def _timed(block: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Before a block: of the drawn tokens, which belong to the picture and which, at time 0, to those to edit."""
    lent: Lent = block.attn.processor  # type: ignore[union-attr,assignment]
    times, text = given["modulate_index"], given["encoder_hidden_states"].shape[1]
    if lent.positions is None or lent.keys is None:
        return args, given
    drawn = lent.positions[:, text:] - (lent.keys.shape[1] - times.shape[1])
    return args, {**given, "modulate_index": times.gather(1, drawn)}


def _seen(words: Tensor | None, images: int) -> Tensor | None:
    """Which keys may be attended to, (r, T) → (r, 1, 1, T + N); None for all."""
    if words is None:
        return None
    return torch.cat([words.bool(), words.new_ones(len(words), images, dtype=torch.bool)], dim=1)[:, None, None]
