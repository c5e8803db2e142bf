"""Transformer families: where a transformer's tokens enter, attend and leave.

A family teaches one large transformer to draw part of a picture without touching its `forward`. Families never import
each other; `pair.py` picks one by the transformer's class.
"""

from typing import Any, Protocol

from torch import Tensor, nn

KeysValues = list[tuple[Tensor, Tensor]]


class Family(Protocol):
    """How one attached transformer draws all or part of a picture.

    Attributes:
        patch: p, latent pixels along a token's side.
    """

    patch: int

    def attach(self) -> None:
        """Install what drawing parts needs. The plain forward stays bit-exact."""
        ...

    def detach(self) -> None:
        """Leave the transformer as it was found."""
        ...

    def intact(self) -> str | None:
        """What was replaced since `attach`, in words, or None."""
        ...

    def dense(self, inputs: dict[str, Any], *, keep: bool) -> tuple[Tensor, KeysValues]:
        """Draw everything.

        Args:
            inputs: keyword arguments of the transformer's forward for R rows.
            keep: also return the keys and values of every attention layer.

        Returns:
            the prediction (R, C, H, W), and per layer keys and values (R, N + T, heads, width) or nothing.
        """
        ...

    def masked(
        self, inputs: dict[str, Any], tokens: Tensor, cache: KeysValues, rows: Tensor | None, *, text: str
    ) -> Tensor:
        """Draw some tokens with the cached keys and values of all others, and write theirs into the cache.

        Args:
            inputs: keyword arguments of the transformer's forward for R rows.
            tokens: indices of the tokens to draw, (R, K), ascending.
            cache: per layer keys and values of all rows the cache holds.
            rows: which of the cache's rows these are, (R,), or None for all.
            text: "fresh" recomputes the text tokens, "cached" leaves theirs as they are and computes none.

        Returns:
            (R, C, H, W); only the drawn tokens mean anything.
        """
        ...

    def module(self) -> nn.Module:
        """The transformer."""
        ...
