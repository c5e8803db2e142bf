"""Families whose tokens enter and leave inside the transformer's forward: hooks gather them and put them back."""

from typing import Any

import torch
from torch import Tensor, nn

from .attached import Attached
from .family import Inputs


class Hooked(Attached):
    """See `family.Family`.

    A family calls `mark` before some tokens are drawn, and hooks `leave` to its last layer; `enter` to its first,
    where that adds the positions.
    """

    def __init__(self, transformer: Any) -> None:
        """See `Attached`."""
        super().__init__(transformer)
        self._drawn: Tensor | None = None  # of a masked call, where its tokens lie among all rows' tokens, (R·K,)
        self._tokens = 0

    def mark(self, inputs: Inputs, tokens: Tensor) -> None:
        """Some tokens are about to be drawn.

        Args:
            inputs: of r rows.
            tokens: (r, K).
        """
        self._tokens = self.layout.count(inputs["hidden_states"])
        rows = torch.arange(len(tokens), device=tokens.device)
        self._drawn = (rows[:, None] * self._tokens + tokens).flatten()

    def enter(self, module: nn.Module, inputs: tuple[Any, ...], embedded: Tensor) -> Tensor | None:
        """After the first layer, positions included: keep the drawn tokens, (R, N, D) → (R, K, D)."""
        if self._drawn is None:
            return None
        return embedded.flatten(0, 1).index_select(0, self._drawn).unflatten(0, (len(embedded), -1))

    def leave(self, module: nn.Module, inputs: tuple[Any, ...], drawn: Tensor) -> Tensor | None:
        """After the last layer: put the drawn tokens back among zeros, (R, K, …) → (R, N, …)."""
        if self._drawn is None:
            return None
        whole = drawn.new_zeros(len(drawn) * self._tokens, drawn.shape[-1])
        return whole.index_copy_(0, self._drawn, drawn.flatten(0, 1)).unflatten(0, (len(drawn), -1))

    def _take_back(self) -> None:
        self._drawn = None
        super()._take_back()
