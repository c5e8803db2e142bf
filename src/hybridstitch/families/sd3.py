"""Stable Diffusion 3, 3.5-large (qk-norm) and 3.5-medium (dual attention).

Tokens enter at `pos_embed` (a hook gathers the drawn ones, their position already added), attend in the joint blocks
and leave at `proj_out` (a hook puts them back among N). The memory holds image tokens first, then text; `attn2` of the
dual blocks attends over image tokens only and keeps its own.
"""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, JointAttnProcessor2_0
from torch import Tensor

from ..policies.latency import Shape
from .family import CONTROLNET, Config, Facts, Inputs
from .hooked import Hooked
from .layout import Layout
from .lent import Lent

IMAGE_ONLY = "attn2"  # how the names of the second, image-only attentions end


class JointAttention(Lent):
    """The stock joint attention; its memory takes the place of the concatenation of image and text."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend.

        Args:
            attn: the attention module whose projections serve.
            hidden_states: image tokens (R, n, D), n = K in a masked call.
            encoder_hidden_states: text tokens (R, T, D), zero of them when their keys and values are cached; None
                in image-only attention.
            attention_mask: never given by this family.

        Returns:
            image tokens, and text tokens where given.
        """
        self.ran = True
        self.bring()
        heads, drawn = attn.heads, hidden_states.shape[1]
        query = attn.to_q(hidden_states).unflatten(-1, (heads, -1))  # (R, n, heads, width)
        key = attn.to_k(hidden_states).unflatten(-1, (heads, -1))
        value = attn.to_v(hidden_states).unflatten(-1, (heads, -1))
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        text_key = text_value = None
        if encoder_hidden_states is not None and encoder_hidden_states.shape[1] > 0:
            text_key = attn.add_k_proj(encoder_hidden_states).unflatten(-1, (heads, -1))  # (R, T, heads, width)
            text_value = attn.add_v_proj(encoder_hidden_states).unflatten(-1, (heads, -1))
            if attn.norm_added_k is not None:
                text_key = attn.norm_added_k(text_key)
            if self.places is None or not attn.context_pre_only:  # the last block's text goes nowhere
                text_query = attn.add_q_proj(encoder_hidden_states).unflatten(-1, (heads, -1))
                if attn.norm_added_q is not None:
                    text_query = attn.norm_added_q(text_query)
                query = torch.cat([query, text_query], dim=1)

        key, value = self._joined(self.keys, key, text_key), self._joined(self.values, value, text_value)
        mixed = self.mix(query, key, value).flatten(2, 3).to(query.dtype)
        image = attn.to_out[1](attn.to_out[0](mixed[:, :drawn]))
        if encoder_hidden_states is None:
            return image
        words = mixed[:, drawn:]
        return image, words if attn.context_pre_only or words.shape[1] == 0 else attn.to_add_out(words)

    def _joined(self, memory: Tensor | None, fresh: Tensor, words: Tensor | None) -> Tensor:
        """Keys or values of all tokens, image first; what is new is left in the memory."""
        if memory is not None and self.places is not None:
            whole = self.keep(memory, fresh)
            if words is not None:
                self.put(memory[:, memory.shape[1] - words.shape[1] :], words)
            return whole
        elsewhere = memory is not None and (memory.dtype, memory.device) != (fresh.dtype, fresh.device)
        if memory is None or self.some_rows or elsewhere:
            return self.keep(memory, fresh if words is None else torch.cat([fresh, words], dim=1))
        memory[:, : fresh.shape[1]] = fresh
        if words is not None:
            memory[:, fresh.shape[1] :] = words
        return memory


def shape(config: Config, tokens: int, text: int) -> Shape:
    """Cost by a configuration."""
    return Shape(
        width=config["num_attention_heads"] * config["attention_head_dim"],
        layers=config["num_layers"],
        image_tokens=tokens,
        text_tokens=text,
        dual_layers=len(config.get("dual_attention_layers") or ()),
    )


def scale(config: Config, vae: Config) -> int:
    """Pixels along a token's side."""
    return 2 ** (len(vae["block_out_channels"]) - 1) * config["patch_size"]


class SD3Family(Hooked):
    """See `family.Family`."""

    kinds = (Attention,)
    stock = (JointAttnProcessor2_0,)
    facts = Facts(
        name="SD3Transformer2DModel",
        layout=lambda config: Layout((2, 3), (config["patch_size"],) * 2),
        same={
            "in_channels": "latent channels",
            "out_channels": "predicted channels",
            "patch_size": "patch size",
            "joint_attention_dim": "text width",
            "pooled_projection_dim": "pooled text width",
        },
        words=frozenset({"joint_attention_dim", "pooled_projection_dim"}),
        shared=frozenset({"joint_attention_kwargs", "skip_layers"}),
        refused={"block_controlnet_hidden_states": CONTROLNET},
        blocks=("JointTransformerBlock",),
        masks=True,
        text=333,  # 77 of CLIP, 256 of T5
        shape=shape,
        tokens=lambda config, vae, size: (size[0] // scale(config, vae)) * (size[1] // scale(config, vae)),
        native=lambda config, vae: (config["sample_size"] * scale(config, vae) // config["patch_size"],) * 2,
        multiple=lambda config, vae: (scale(config, vae),) * 2,
        largest=lambda config, vae: (scale(config, vae) * config["pos_embed_max_size"],) * 2,
    )

    def processor(self, attention: Any) -> Lent:
        """See `Attached`."""
        return JointAttention()

    def hooks(self) -> Iterable[torch.utils.hooks.RemovableHandle]:
        """See `Attached`."""
        yield self.transformer.pos_embed.register_forward_hook(self.enter)
        yield self.transformer.proj_out.register_forward_hook(self.leave)

    def keys(self, inputs: Inputs) -> int:
        """Image and text."""
        return self.layout.count(inputs["hidden_states"]) + inputs["encoder_hidden_states"].shape[1]

    def lengths(self, inputs: Inputs) -> list[int]:
        """See `Attached`."""
        image = self.layout.count(inputs["hidden_states"])
        return [image if name.endswith(IMAGE_ONLY) else self.keys(inputs) for name in self._ours]

    def some(self, inputs: Inputs, tokens: Tensor, text: str) -> tuple[Inputs, Tensor]:
        """See `Attached`; the tokens are gathered by a hook, once their positions were added."""
        self.mark(inputs, tokens)
        if text == "cached":
            inputs = {**inputs, "encoder_hidden_states": inputs["encoder_hidden_states"][:, :0]}
        return inputs, tokens
