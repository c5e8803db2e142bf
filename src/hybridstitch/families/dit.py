"""DiT, class-conditional: no text, positions added as tokens enter, and variances predicted beside the noise.

Its pipeline draws [with class, without] in one call and steps the scheduler with both, whose latents are the same.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor

from ..policies.latency import Shape
from .classes import PATCH, square
from .family import Config, Facts, Inputs, Size
from .hooked import Hooked
from .lent import Lent


class SelfAttention(Lent):
    """The stock attention of a block's tokens to each other."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend; as the stock processor: (R, n, D), no text and no mask."""
        query = attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1))  # (R, n, heads, width)
        key = attn.to_k(hidden_states).unflatten(-1, (attn.heads, -1))
        value = attn.to_v(hidden_states).unflatten(-1, (attn.heads, -1))
        return attn.to_out[1](attn.to_out[0](self.attend(query, key, value).flatten(2, 3).to(query.dtype)))


def shape(config: Config, tokens: int, text: int) -> Shape:
    """Cost by a configuration."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    return Shape(width=width, layers=config["num_layers"], image_tokens=tokens, text_tokens=text, held=(4, 0))


def side(config: Config, vae: Config) -> int:
    """Pixels along a token's side."""
    return 2 ** (len(vae["block_out_channels"]) - 1) * config["patch_size"]


def native(config: Config, vae: Config) -> Size:
    """The one size that its pipeline draws."""
    return (config["sample_size"] * side(config, vae) // config["patch_size"],) * 2


def one_branch(inputs: Inputs, config: Config) -> Callable[[Tensor], Tensor] | None:
    """Of the two branches that the scheduler steps, the first."""
    labels = inputs["class_labels"]
    half = len(labels) // 2
    doubled = len(labels) % 2 == 0 and bool((labels[half:] == config["num_embeds_ada_norm"]).all())  # one read a run
    return (lambda latent: latent[:half]) if doubled else None


class DiTFamily(Hooked):
    """See `family.Family`."""

    kinds = (Attention,)
    stock = (AttnProcessor2_0,)
    facts = Facts(
        name="DiTTransformer2DModel",
        layout=square,
        same={**PATCH, "sample_size": "size of the latent", "num_embeds_ada_norm": "classes"},
        shared=frozenset({"cross_attention_kwargs"}),
        blocks=("BasicTransformerBlock",),
        masks=True,
        shape=shape,
        tokens=lambda config, vae, size: (size[0] // side(config, vae)) * (size[1] // side(config, vae)),
        native=native,
        multiple=native,
        largest=native,
        stepped=one_branch,
        conditional_first=True,
    )

    def processor(self, attention: Any) -> Lent:
        """See `Attached`."""
        return SelfAttention()

    def hooks(self) -> Iterable[torch.utils.hooks.RemovableHandle]:
        """See `Attached`."""
        yield self.transformer.pos_embed.register_forward_hook(self.enter)
        yield self.transformer.proj_out_2.register_forward_hook(self.leave)

    def keys(self, inputs: Inputs) -> int:
        """The picture's tokens."""
        return self.layout.count(inputs["hidden_states"])

    def some(self, inputs: Inputs, tokens: Tensor, text: str) -> tuple[Inputs, Tensor]:
        """See `Attached`; the tokens are gathered by a hook, once their positions were added."""
        self.mark(inputs, tokens)
        return inputs, tokens
