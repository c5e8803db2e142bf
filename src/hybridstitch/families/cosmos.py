"""Cosmos-Predict2: pictures and videos, RoPE over frames, rows and columns, text by cross-attention.

Tokens enter behind `patch_embed`, take their positions from `rope`'s table, attend to each other in every block's
`attn1` and leave at `proj_out`. Where frames have times of their own (video from a picture), every norm takes those of
the drawn tokens. The model sees its latent scaled. Text cached is text fresh.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from diffusers.models.transformers.transformer_cosmos import CosmosAttnProcessor2_0
from torch import Tensor, nn

from .classes import PATCH, video
from .family import CONTROLNET, Config, Facts, Inputs, Size, two_calls
from .hooked import Hooked
from .lent import Lent
from .packed import gathered
from .rotary import Table
from .video import counted, crossed, self_attentions, wan_multiple


class SelfAttention(Lent):
    """The stock attention of a block's tokens to each other."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Table = (),  # type: ignore[assignment]
    ) -> Tensor:
        """Attend; as the stock processor: (R, n, D), a table (1 or R, n, 1, width), no text and no mask."""
        query = attn.norm_q(attn.to_q(hidden_states).unflatten(2, (attn.heads, -1)))  # (R, n, heads, width)
        key = attn.norm_k(attn.to_k(hidden_states).unflatten(2, (attn.heads, -1)))
        value = attn.to_v(hidden_states).unflatten(2, (attn.heads, -1))
        mixed = self.attend(_turned(query, image_rotary_emb), _turned(key, image_rotary_emb), value)
        return attn.to_out[1](attn.to_out[0](mixed.flatten(2, 3).type_as(query)))


def largest(config: Config, vae: Config) -> Size:
    """What the position table reaches; `max_size` is in latent frames, rows and columns."""
    frames, rows, columns = wan_multiple(config, vae)
    patches = zip(config["max_size"], config["patch_size"], strict=True)
    reach = [most // side for most, side in patches]
    return frames * (reach[0] - 1) + 1, rows * reach[1], columns * reach[2]


class CosmosFamily(Hooked):
    """See `family.Family`."""

    stock = (CosmosAttnProcessor2_0,)
    facts = Facts(
        name="CosmosTransformer3DModel",
        layout=video,
        same={**PATCH, "text_embed_dim": "text width"},
        words=frozenset({"text_embed_dim"}),
        shared=frozenset({"padding_mask", "fps"}),
        refused={"block_controlnet_hidden_states": CONTROLNET},
        blocks=("CosmosTransformerBlock",),
        masks=True,
        text=512,
        shape=partial(crossed, held=(4, 0), rounded=(1, 0)),
        tokens=counted(wan_multiple),
        native=lambda config, vae: (93, 704, 1280),
        multiple=wan_multiple,
        largest=largest,
        guided=two_calls,
        scaled=True,
    )

    def attentions(self) -> Mapping[str, Any]:
        """See `Attached`."""
        return self_attentions(self.transformer, "transformer_blocks")

    def processor(self, attention: Any) -> Lent:
        """See `Attached`."""
        return SelfAttention()

    def hooks(self) -> Iterable[torch.utils.hooks.RemovableHandle]:
        """See `Attached`."""
        model = self.transformer
        yield model.rope.register_forward_hook(self._place)
        yield model.patch_embed.register_forward_hook(self._enter)
        yield model.proj_out.register_forward_hook(self.leave)
        if model.config.extra_pos_embed_type:
            yield model.learnable_pos_embed.register_forward_hook(self._learnt)
        for norm in (*(n for b in model.transformer_blocks for n in (b.norm1, b.norm2, b.norm3)), model.norm_out):
            yield norm.register_forward_pre_hook(self._time)

    def keys(self, inputs: Inputs) -> int:
        """The video's tokens."""
        return self.layout.count(inputs["hidden_states"])

    def some(self, inputs: Inputs, tokens: Tensor, text: str) -> tuple[Inputs, Tensor]:
        """See `Attached`."""
        self.mark(inputs, tokens)
        self._chosen = tokens
        return inputs, tokens

    def _place(self, module: nn.Module, inputs: tuple[Any, ...], table: Table) -> Table:
        """After `rope`: positions of the tokens at hand, (N, width) → (1 or R, n, 1, width)."""
        cos, sin = (e[None, :, None] if self._drawn is None else e[self._chosen][:, :, None] for e in table)
        return cos, sin

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...], embedded: Tensor) -> Tensor | None:
        """After `patch_embed`: keep the drawn tokens, (R, F, H, W, D) → (R, K, 1, 1, D)."""
        return None if self._drawn is None else gathered(embedded.flatten(1, 3), self._chosen)[:, :, None, None]

    def _learnt(self, module: nn.Module, inputs: tuple[Any, ...], places: Tensor) -> Tensor | None:
        """After `learnable_pos_embed`: the drawn tokens' places, (R, N, D) → (R, K, D)."""
        return None if self._drawn is None else gathered(places, self._chosen)

    def _time(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Before a norm: times of the drawn tokens, (R, N, D) → (R, K, D), where tokens have some."""
        if self._drawn is None or inputs[1].ndim < 3 or inputs[1].shape[1] != self._tokens:
            return None
        return inputs[0], *(gathered(times, self._chosen) for times in inputs[1:] if times is not None)


def _turned(tensor: Tensor, table: Table) -> Tensor:
    """Queries or keys at their positions, as Cosmos turns them: the first half of the width with the second."""
    real, imaginary = tensor.unflatten(-1, (2, -1)).unbind(-2)
    across = torch.cat([-imaginary, real], dim=-1)
    return (tensor.float() * table[0] + across.float() * table[1]).to(tensor.dtype)
