"""Joint attention of image and text with a memory: image tokens first, then text."""

from typing import Any

import torch
from diffusers.models.attention_processor import JointAttnProcessor2_0
from torch import Tensor

from .lent import Lent


class JointAttention(Lent):
    """The stock joint attention; its memory takes the place of the concatenation of image and text.

    Without a memory the stock one itself attends, whose order of heads and tokens is the faster one there.
    """

    def __init__(self) -> None:
        """Start with nothing lent."""
        super().__init__()
        self._stock = JointAttnProcessor2_0()

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
        if self.keys is None or self.values is None:
            return self._stock(attn, hidden_states, encoder_hidden_states, attention_mask)  # pyright: ignore
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

    def _joined(self, memory: Tensor, fresh: Tensor, words: Tensor | None) -> Tensor:
        """Keys or values of all tokens, image first; what is new is left in the memory."""
        if self.places is not None:
            whole = self.keep(memory, fresh)
            if words is not None:
                self.put(memory[:, memory.shape[1] - words.shape[1] :], words)
            return whole
        if self.some_rows or (memory.dtype, memory.device) != (fresh.dtype, fresh.device):
            return self.keep(memory, fresh if words is None else torch.cat([fresh, words], dim=1))
        memory[:, : fresh.shape[1]] = fresh
        if words is not None:
            memory[:, fresh.shape[1] :] = words
        return memory
