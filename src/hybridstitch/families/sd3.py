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
from .joint import JointAttention
from .layout import Layout
from .lent import Lent

IMAGE_ONLY = "attn2"  # how the names of the second, image-only attentions end


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
