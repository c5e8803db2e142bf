"""Transformer families: where a transformer's tokens enter, attend and leave.

A family teaches one large transformer to draw part of a picture without touching its `forward`. Families never import
each other; `pair.py` picks one by the transformer's class.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..compat import ModelMixin
from ..errors import StitchError

KeysValues = list[tuple[Tensor, Tensor]]


class Family(Protocol):
    """How one attached transformer draws all or part of a picture.

    Attributes:
        patch: p, latent pixels along a token's side.
        call: what draws: the transformer, or a compiled form of it.
    """

    patch: int
    call: Callable[..., Any]

    def attach(self) -> None:
        """Install what drawing parts needs. The plain forward stays bit-exact."""
        ...

    def detach(self) -> None:
        """Leave the transformer as it was found."""
        ...

    def intact(self) -> str | None:
        """What was replaced since `attach`, in words, or None."""
        ...

    def room(self, inputs: dict[str, Any], dtype: torch.dtype | None = None) -> KeysValues:
        """Memory for the keys and values of a call like this one, not filled.

        Args:
            inputs: keyword arguments of the transformer's forward for R rows.
            dtype: of the memory; default: that of the latent.

        Returns:
            per attention layer two tensors (R, N + T, heads, width); N where a layer sees no text.
        """
        ...

    def dense(
        self,
        inputs: dict[str, Any],
        *,
        keep: bool,
        memory: KeysValues | None = None,
        rows: Tensor | None = None,
        whole: bool = False,
    ) -> tuple[Tensor, KeysValues]:
        """Draw everything.

        Args:
            inputs: keyword arguments of the transformer's forward for R rows.
            keep: leave the keys and values of every attention layer in `memory`.
            memory: where to, of `room`'s shapes; None makes room.
            rows: which of the memory's rows these are, (R,), or None for all.
            whole: run every block, where a cache put over the model would skip some.

        Returns:
            the prediction (R, C, H, W), and the memory; nothing if `keep` is off or blocks were skipped.
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


def family_of(transformer: ModelMixin) -> Family:
    """The family of a transformer, not yet attached.

    Raises:
        StitchError: no family knows its class.
    """
    from diffusers import SD3Transformer2DModel

    from .sd3 import SD3Family

    if isinstance(transformer, SD3Transformer2DModel):
        return SD3Family(transformer)
    raise StitchError(
        f"{type(transformer).__name__} belongs to no family this release can stitch; it stitches SD3Transformer2DModel"
    )
