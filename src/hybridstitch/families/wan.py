"""Wan 2.1 and 2.2: videos, RoPE over frames, rows and columns, text and pictures by cross-attention.

Tokens enter behind `patch_embedding`, take their positions from `rope`'s table, attend to each other in every block's
`attn1` and leave at `proj_out`. Cross-attention goes token by token and stays as it is: text cached is text fresh.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch import Tensor, nn

from ..policies.latency import Shape
from .classes import PATCH, video
from .family import Config, Facts, Inputs, two_calls
from .hooked import Hooked
from .lent import Lent
from .rotary import Table
from .video import counted, crossed, self_attentions, wan_largest, wan_multiple


class SelfAttention(Lent):
    """The stock attention of a block's tokens to each other."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Table = (),  # type: ignore[assignment]
    ) -> Tensor:
        """Attend; as the stock processor: (R, n, D), a table (1 or R, n, 1, width), no text and no mask."""
        query = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, (attn.heads, -1))  # (R, n, heads, width)
        key = attn.norm_k(attn.to_k(hidden_states)).unflatten(2, (attn.heads, -1))
        value = attn.to_v(hidden_states).unflatten(2, (attn.heads, -1))
        mixed = self.attend(_turned(query, rotary_emb), _turned(key, rotary_emb), value)
        return attn.to_out[1](attn.to_out[0](mixed.flatten(2, 3).type_as(query)))


def shape(config: Config, tokens: int, text: int) -> Shape:
    """See `crossed`; in half precision a norm, which works in float32, may hold more than the feed-forward."""
    mlp = config["ffn_dim"] / (config["num_attention_heads"] * config["attention_head_dim"])
    return crossed(config, tokens, text, held=(4, 1), rounded=(max(0.0, 7 - 2 * mlp), 0))


class WanFamily(Hooked):
    """See `family.Family`."""

    stock = (WanAttnProcessor,)
    fusible = True
    facts = Facts(
        name="WanTransformer3DModel",
        layout=video,
        same={**PATCH, "image_dim": "width of what a picture is seen as", "text_dim": "text width"},
        words=frozenset({"text_dim"}),
        shared=frozenset({"attention_kwargs"}),
        blocks=("WanTransformerBlock",),
        masks=True,
        text=512,
        shape=shape,
        tokens=counted(wan_multiple),
        native=lambda config, vae: (81, 480, 832),
        multiple=wan_multiple,
        largest=wan_largest,
        guided=two_calls,
    )

    def attentions(self) -> Mapping[str, Any]:
        """See `Attached`."""
        return self_attentions(self.transformer, "blocks")

    def processor(self, attention: Any) -> Lent:
        """See `Attached`."""
        return SelfAttention()

    def hooks(self) -> Iterable[torch.utils.hooks.RemovableHandle]:
        """See `Attached`."""
        yield self.transformer.rope.register_forward_hook(self._place)
        yield self.transformer.patch_embedding.register_forward_hook(self._enter)
        yield self.transformer.proj_out.register_forward_hook(self.leave)

    def keys(self, inputs: Inputs) -> int:
        """The video's tokens."""
        return self.layout.count(inputs["hidden_states"])

    def some(self, inputs: Inputs, tokens: Tensor, text: str) -> tuple[Inputs, Tensor]:
        """See `Attached`; each token of TI2V has a time of its own."""
        self.mark(inputs, tokens)
        self._chosen = tokens
        times = inputs["timestep"]
        return (inputs if times.ndim == 1 else {**inputs, "timestep": times.gather(1, tokens)}), tokens

    def _place(self, module: nn.Module, inputs: tuple[Any, ...], table: Table) -> Table | None:
        """After `rope`: the drawn tokens' positions, (1, N, 1, width) → (R, K, 1, width)."""
        if self._drawn is None:
            return None
        cos, sin = (entries[0][self._chosen] for entries in table)
        return cos, sin

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...], embedded: Tensor) -> Tensor | None:
        """After `patch_embedding`: keep the drawn tokens, (R, D, F, H, W) → (R, D, 1, 1, K)."""
        if self._drawn is None:
            return None
        where = self._chosen[:, None].expand(-1, embedded.shape[1], -1)
        return embedded.flatten(2).gather(2, where)[:, :, None, None]


def _turned(tensor: Tensor, table: Table) -> Tensor:
    """Queries or keys at their positions, as Wan turns them."""
    real, imaginary = tensor.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = table[0][..., 0::2], table[1][..., 1::2]
    turned = torch.empty_like(tensor)
    turned[..., 0::2] = real * cos - imaginary * sin
    turned[..., 1::2] = real * sin + imaginary * cos
    return turned.type_as(tensor)
