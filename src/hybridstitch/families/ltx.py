"""LTX-Video: videos packed to tokens, RoPE over frames, rows and columns, text by cross-attention.

Drawn tokens are given to the transformer as its video, each with its own time where conditions give it one; they take
their positions from `rope`'s table, and attend to each other in every block's `attn1`. Text cached is text fresh.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from diffusers.models.transformers.transformer_ltx import LTXVideoAttnProcessor, apply_rotary_emb
from torch import Tensor, nn

from .attached import Attached
from .classes import PATCH, by_size, packed, packing
from .family import Config, Facts, Inputs, Size
from .lent import Lent
from .packed import gathered, placed
from .rotary import Table
from .video import counted, crossed, self_attentions


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
        """Attend; as the stock processor: (R, n, D), a table (R, n, D), no text and no mask."""
        query = apply_rotary_emb(attn.norm_q(attn.to_q(hidden_states)), image_rotary_emb)
        key = apply_rotary_emb(attn.norm_k(attn.to_k(hidden_states)), image_rotary_emb)
        value = attn.to_v(hidden_states)
        query, key, value = (tensor.unflatten(2, (attn.heads, -1)) for tensor in (query, key, value))
        mixed = self.attend(query, key, value).flatten(2, 3).to(query.dtype)
        return attn.to_out[1](attn.to_out[0](mixed))


def multiple(config: Config, vae: Config) -> Size:
    """Frames, rows and columns of pixels of a token."""
    halvings = 2 ** sum(vae.get("spatio_temporal_scaling", (True, True, True)))
    space = vae.get("spatial_compression_ratio") or vae.get("patch_size", 4) * halvings
    time = vae.get("temporal_compression_ratio") or vae.get("patch_size_t", 1) * halvings
    return time * config["patch_size_t"], space * config["patch_size"], space * config["patch_size"]


class LTXFamily(Attached):
    """See `family.Family`."""

    stock = (LTXVideoAttnProcessor,)
    facts = Facts(
        name="LTXVideoTransformer3DModel",
        layout=packed,
        same={**PATCH, "patch_size_t": "patch frames", "caption_channels": "text width"},
        words=frozenset({"caption_channels"}),
        shared=frozenset({"num_frames", "height", "width", "rope_interpolation_scale", "attention_kwargs"}),
        blocks=("LTXVideoTransformerBlock",),
        masks=True,
        text=128,
        shape=partial(crossed, held=(6, 1), rounded=(2, 0)),  # its positions are as wide as a token, in float32
        tokens=counted(multiple),
        native=lambda config, vae: (161, 512, 704),
        multiple=multiple,
        grid=by_size,
        stepped=packing,
    )

    def attentions(self) -> Mapping[str, Any]:
        """See `Attached`."""
        return self_attentions(self.transformer, "transformer_blocks")

    def processor(self, attention: Any) -> Lent:
        """See `Attached`."""
        return SelfAttention()

    def hooks(self) -> Iterable[torch.utils.hooks.RemovableHandle]:
        """See `Attached`."""
        self._chosen: Tensor | None = None  # of a masked call, which tokens each row draws, (R, K)
        yield self.transformer.rope.register_forward_hook(self._place)

    def keys(self, inputs: Inputs) -> int:
        """The video's tokens, those of conditions included."""
        return inputs["hidden_states"].shape[1]

    def some(self, inputs: Inputs, tokens: Tensor, text: str) -> tuple[Inputs, Tensor]:
        """See `Attached`."""
        self._chosen, times = tokens, inputs["timestep"]
        given = {**inputs, "hidden_states": gathered(inputs["hidden_states"], tokens)}
        if times.ndim > 1 and times.shape[1] == self.keys(inputs):
            given["timestep"] = times.gather(1, tokens)
        return given, tokens

    def whole(self, drawn: Tensor, inputs: Inputs, tokens: Tensor) -> Tensor:
        """See `Attached`."""
        return placed(drawn, tokens, self.keys(inputs))

    def _place(self, module: nn.Module, inputs: tuple[Any, ...], table: Table) -> Table | None:
        """After `rope`: the drawn tokens' positions, (R, N, D) → (R, K, D)."""
        if self._chosen is None:
            return None
        cos, sin = (gathered(entries, self._chosen) for entries in table)
        return cos, sin

    def _take_back(self) -> None:
        self._chosen = None
        super()._take_back()
