"""Stable Diffusion 3, 3.5-large (qk-norm) and 3.5-medium (dual attention).

Tokens enter at `pos_embed` (a hook gathers the drawn ones, their position already added), attend in the joint blocks
(a processor keeps keys and values, post-norm) and leave at `proj_out` (a hook puts them back among N). Everything in
between works token by token, so the transformer's own forward draws any subset. `attn2` of the dual blocks attends
over image tokens only and keeps its own keys and values.
"""

from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from ..compat import attention
from . import KeysValues


class JointAttention:
    """The stock joint attention, plus a memory that is lent to it for one call and taken back after.

    Attributes:
        keep: leave the keys and values of this call in `memory`.
        memory: keys and values (R', N + T, heads, width), lent or left; None otherwise.
        tokens: the drawn tokens (R, K) in a masked call; None in a dense one.
        rows: the memory's rows these are, (R, 1), in a masked call.
        every_row: whether `rows` are all rows of the memory, in order.
    """

    _attention_backend = None
    _parallel_config = None

    def __init__(self) -> None:
        """Start with nothing lent."""
        self.keep = False
        self.every_row = True
        self.memory: tuple[Tensor, Tensor] | None = None
        self.tokens: Tensor | None = None
        self.rows: Tensor | None = None

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
        heads, drawn = attn.heads, hidden_states.shape[1]
        query = attn.to_q(hidden_states).unflatten(-1, (heads, -1))  # (R, n, heads, width)
        key = attn.to_k(hidden_states).unflatten(-1, (heads, -1))
        value = attn.to_v(hidden_states).unflatten(-1, (heads, -1))
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        text = None
        if encoder_hidden_states is not None and encoder_hidden_states.shape[1] > 0:
            text_query = attn.add_q_proj(encoder_hidden_states).unflatten(-1, (heads, -1))  # (R, T, heads, width)
            text_key = attn.add_k_proj(encoder_hidden_states).unflatten(-1, (heads, -1))
            text_value = attn.add_v_proj(encoder_hidden_states).unflatten(-1, (heads, -1))
            if attn.norm_added_q is not None:
                text_query = attn.norm_added_q(text_query)
            if attn.norm_added_k is not None:
                text_key = attn.norm_added_k(text_key)
            query = torch.cat([query, text_query], dim=1)
            text = (text_key, text_value)

        if self.tokens is None:
            if text is not None:
                key, value = torch.cat([key, text[0]], dim=1), torch.cat([value, text[1]], dim=1)
            if self.keep:
                self.memory = (key.detach(), value.detach())
        else:
            key, value = self._among_the_others(key, value, text)

        mixed = attention(query, key, value, self._attention_backend).flatten(2, 3).to(query.dtype)
        image = attn.to_out[1](attn.to_out[0](mixed[:, :drawn]))
        if encoder_hidden_states is None:
            return image
        words = mixed[:, drawn:]
        return image, words if attn.context_pre_only else attn.to_add_out(words)

    def _among_the_others(
        self, key: Tensor, value: Tensor, text: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Write the fresh keys and values into the memory and return those of all tokens of these rows."""
        assert self.memory is not None
        whole = []
        for kept, fresh, words in zip(self.memory, (key, value), text or (None, None), strict=True):
            kept[self.rows, self.tokens] = fresh
            if words is not None:
                start = kept.shape[1] - words.shape[1]
                if self.every_row:
                    kept[:, start:] = words
                else:
                    kept[self.rows[:, 0], start:] = words  # type: ignore[index]
            whole.append(kept if self.every_row else kept.index_select(0, self.rows[:, 0]))  # type: ignore[index]
        return whole[0], whole[1]


class SD3Family:
    """An attached `SD3Transformer2DModel`; see `families.Family`."""

    def __init__(self, transformer: SD3Transformer2DModel) -> None:
        """Prepare; nothing is installed before `attach`.

        Args:
            transformer: the large model.
        """
        self.transformer = transformer
        self.patch: int = transformer.config["patch_size"]
        self._tokens: Tensor | None = None
        self._grid_tokens = 0
        self._stock: dict[str, Any] = {}
        self._ours: dict[str, JointAttention] = {}
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def module(self) -> nn.Module:
        """The transformer."""
        return self.transformer

    def attach(self) -> None:
        """Install processors and hooks; a distinct processor per attention (`attn` and `attn2` share the stock one)."""
        self._stock = dict(self.transformer.attn_processors)
        self._ours = {name: JointAttention() for name in self._stock}
        for name, processor in self._stock.items():
            self._ours[name]._attention_backend = getattr(processor, "_attention_backend", None)
        self._install(self._ours)
        self._hooks = [
            self.transformer.pos_embed.register_forward_hook(self._enter),
            self.transformer.proj_out.register_forward_hook(self._leave),
        ]

    def detach(self) -> None:
        """Put the found processors back and remove the hooks."""
        for hook in self._hooks:
            hook.remove()
        self._install(self._stock)
        self._hooks, self._stock, self._ours = [], {}, {}

    def intact(self) -> str | None:
        """Name the first attention whose processor is no longer ours, or None."""
        now = self.transformer.attn_processors
        for name, processor in self._ours.items():
            if now.get(name) is not processor:
                return f"{name} has a {type(now.get(name)).__name__}"
        return None

    def dense(self, inputs: dict[str, Any], *, keep: bool) -> tuple[Tensor, KeysValues]:
        """See `families.Family`."""
        processors = self._ours.values()
        try:
            for processor in processors:
                processor.keep = keep
            prediction = self.transformer(**inputs, return_dict=False)[0]
            kept = [p.memory for p in processors if p.memory is not None] if keep else []
        finally:
            self._take_back()
        return prediction, kept

    def masked(
        self, inputs: dict[str, Any], tokens: Tensor, cache: KeysValues, rows: Tensor | None, *, text: str
    ) -> Tensor:
        """See `families.Family`."""
        where = torch.arange(len(tokens), device=tokens.device) if rows is None else rows
        if text == "cached":
            inputs = {**inputs, "encoder_hidden_states": inputs["encoder_hidden_states"][:, :0]}
        try:
            self._tokens = tokens
            for processor, memory in zip(self._ours.values(), cache, strict=True):
                processor.memory, processor.tokens = memory, tokens
                processor.rows, processor.every_row = where[:, None], rows is None
            return self.transformer(**inputs, return_dict=False)[0]
        finally:
            self._take_back()

    def _take_back(self) -> None:
        self._tokens = None
        for processor in self._ours.values():
            processor.keep, processor.every_row = False, True
            processor.memory = processor.tokens = processor.rows = None

    def _install(self, processors: dict[str, Any]) -> None:
        self.transformer.set_attn_processor(dict(processors))

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...], embedded: Tensor) -> Tensor | None:
        """After `pos_embed`: keep the drawn tokens, (R, N, D) → (R, K, D)."""
        if self._tokens is None:
            return None
        self._grid_tokens = embedded.shape[1]
        rows = torch.arange(len(embedded), device=embedded.device)[:, None]
        return embedded[rows, self._tokens]

    def _leave(self, module: nn.Module, inputs: tuple[Any, ...], drawn: Tensor) -> Tensor | None:
        """After `proj_out`: put them back among zeros, (R, K, p·p·C) → (R, N, p·p·C)."""
        if self._tokens is None:
            return None
        whole = drawn.new_zeros(len(drawn), self._grid_tokens, drawn.shape[-1])
        rows = torch.arange(len(drawn), device=drawn.device)[:, None]
        whole[rows, self._tokens] = drawn
        return whole
