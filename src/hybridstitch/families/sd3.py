"""Stable Diffusion 3, 3.5-large (qk-norm) and 3.5-medium (dual attention).

Tokens enter at `pos_embed` (a hook gathers the drawn ones, their position already added), attend in the joint blocks
(a processor leaves keys and values, post-norm, in a memory) and leave at `proj_out` (a hook puts them back among N).
Everything in between works token by token, so the transformer's own forward draws any subset. `attn2` of the dual
blocks attends over image tokens only and keeps its own keys and values.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from ..compat import attention, every_block
from . import KeysValues

IMAGE_ONLY = "attn2.processor"  # how the names of the second, image-only attentions' processors end


class JointAttention:
    """The stock joint attention, plus a memory that is lent to it for one call and taken back after.

    Everything lent is a tensor or None, alike in all layers, so that one compiled block serves them all.

    Attributes:
        keys, values: memory (R', N + T, heads, width), written in place; None where nothing is kept.
        places: where the drawn tokens lie in the memory, flattened to (R'·(N + T), …): (R·K,) in a masked call; None
            in a dense one.
        rows: the memory's rows these are, (R,); None for all of them, in order.
        ran: whether it attended since `ran` was last set to False.
    """

    _attention_backend = None
    _parallel_config = None

    def __init__(self) -> None:
        """Start with nothing lent."""
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.places: Tensor | None = None
        self.rows: Tensor | None = None
        self.ran = False

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
        heads, drawn = attn.heads, hidden_states.shape[1]
        query = attn.to_q(hidden_states).unflatten(-1, (heads, -1))  # (R, n, heads, width)
        key = attn.to_k(hidden_states).unflatten(-1, (heads, -1))
        value = attn.to_v(hidden_states).unflatten(-1, (heads, -1))
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        words = None
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

        key = self._whole(self.keys, key, text_key)
        value = self._whole(self.values, value, text_value)
        mixed = attention(query, key, value, self._attention_backend).flatten(2, 3).to(query.dtype)
        image = attn.to_out[1](attn.to_out[0](mixed[:, :drawn]))
        if encoder_hidden_states is None:
            return image
        words = mixed[:, drawn:]
        return image, words if attn.context_pre_only or words.shape[1] == 0 else attn.to_add_out(words)

    def _whole(self, memory: Tensor | None, fresh: Tensor, words: Tensor | None) -> Tensor:
        """Keys or values of all tokens of these rows, (R, N + T, heads, width); what is new is left in the memory."""
        if self.places is not None:
            assert memory is not None
            return self._among_the_others(memory, fresh, words)
        if memory is None or self.rows is not None or memory.dtype != fresh.dtype:
            whole = fresh if words is None else torch.cat([fresh, words], dim=1)
            if memory is not None and self.rows is None:
                memory.copy_(whole)
            elif memory is not None:
                memory.index_copy_(0, self.rows, whole.to(memory.dtype))  # type: ignore[arg-type]
            return whole
        memory[:, : fresh.shape[1]] = fresh  # the memory takes the concatenation's place
        if words is not None:
            memory[:, fresh.shape[1] :] = words
        return memory

    def _among_the_others(self, memory: Tensor, fresh: Tensor, words: Tensor | None) -> Tensor:
        """Put the drawn tokens' into the memory, and take out those of all tokens."""
        memory.flatten(0, 1).index_copy_(0, self.places, fresh.flatten(0, 1).to(memory.dtype))  # type: ignore[arg-type]
        if words is not None:
            text = memory[:, memory.shape[1] - words.shape[1] :]
            if self.rows is None:
                text.copy_(words)
            else:
                text.index_copy_(0, self.rows, words.to(memory.dtype))
        whole = memory if self.rows is None else memory.index_select(0, self.rows)
        return whole.to(fresh.dtype)


class SD3Family:
    """An attached `SD3Transformer2DModel`; see `families.Family`.

    Attributes:
        call: the transformer, or a compiled form of it.
    """

    def __init__(self, transformer: SD3Transformer2DModel) -> None:
        """Prepare; nothing is installed before `attach`.

        Args:
            transformer: the large model.
        """
        self.transformer = transformer
        self.patch: int = transformer.config["patch_size"]
        self.call: Callable[..., Any] = transformer
        self._drawn: Tensor | None = None
        self._grid = 0
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

    def room(self, inputs: dict[str, Any], dtype: torch.dtype | None = None) -> KeysValues:
        """See `families.Family`."""
        latent, text = inputs["hidden_states"], inputs["encoder_hidden_states"]
        heads = self.transformer.config["num_attention_heads"]
        width = self.transformer.config["attention_head_dim"]
        grid = latent.shape[-2] * latent.shape[-1] // self.patch**2
        lengths = [grid if name.endswith(IMAGE_ONLY) else grid + text.shape[1] for name in self._ours]
        like = {"dtype": dtype or latent.dtype, "device": latent.device}
        return [
            (torch.empty(len(latent), n, heads, width, **like), torch.empty(len(latent), n, heads, width, **like))
            for n in lengths
        ]

    def dense(
        self,
        inputs: dict[str, Any],
        *,
        keep: bool,
        memory: KeysValues | None = None,
        rows: Tensor | None = None,
        whole: bool = False,
    ) -> tuple[Tensor, KeysValues]:
        """See `families.Family`."""
        kept = (self.room(inputs) if memory is None else memory) if keep else []
        try:
            for processor, (keys, values) in zip(self._ours.values(), kept, strict=False):
                processor.keys, processor.values, processor.rows, processor.ran = keys, values, rows, False
            with every_block(self.transformer) if whole else nullcontext():
                prediction = self.call(**inputs, return_dict=False)[0]
            return prediction, kept if all(processor.ran for processor in self._ours.values()) else []
        finally:
            self._take_back()

    def masked(
        self, inputs: dict[str, Any], tokens: Tensor, cache: KeysValues, rows: Tensor | None, *, text: str
    ) -> Tensor:
        """See `families.Family`."""
        if text == "cached":
            inputs = {**inputs, "encoder_hidden_states": inputs["encoder_hidden_states"][:, :0]}
        grid = inputs["hidden_states"].shape[-2] * inputs["hidden_states"].shape[-1] // self.patch**2
        every = torch.arange(len(tokens), device=tokens.device)
        where = (every if rows is None else rows)[:, None]
        lengths = {keys.shape[1] for keys, _ in cache}
        places = {length: (where * length + tokens).flatten() for length in lengths}
        try:
            self._drawn, self._grid = (every[:, None] * grid + tokens).flatten(), grid
            for processor, (keys, values) in zip(self._ours.values(), cache, strict=True):
                processor.keys, processor.values, processor.rows = keys, values, rows
                processor.places = places[keys.shape[1]]
            with every_block(self.transformer):
                return self.call(**inputs, return_dict=False)[0]
        finally:
            self._take_back()

    def _take_back(self) -> None:
        self._drawn = None
        for processor in self._ours.values():
            processor.keys = processor.values = processor.places = processor.rows = None

    def _install(self, processors: dict[str, Any]) -> None:
        self.transformer.set_attn_processor(dict(processors))

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...], embedded: Tensor) -> Tensor | None:
        """After `pos_embed`: keep the drawn tokens, (R, N, D) → (R, K, D)."""
        if self._drawn is None:
            return None
        return embedded.flatten(0, 1).index_select(0, self._drawn).unflatten(0, (len(embedded), -1))

    def _leave(self, module: nn.Module, inputs: tuple[Any, ...], drawn: Tensor) -> Tensor | None:
        """After `proj_out`: put them back among zeros, (R, K, p·p·C) → (R, N, p·p·C)."""
        if self._drawn is None:
            return None
        whole = drawn.new_zeros(len(drawn) * self._grid, drawn.shape[-1])
        return whole.index_copy_(0, self._drawn, drawn.flatten(0, 1)).unflatten(0, (len(drawn), -1))
