"""Keys and values of the large model, by layer, image and guidance branch.

A dense step only leaves references to the tensors attention had to build anyway, image tokens first, then text:
(R, N + T, heads, head width), R rows = branches × images in the order the pipeline gives them. A masked step writes
the keys and values of its tokens into them, in place. Each row knows the step that last drew it: a masked step may
only continue what the previous step left.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor


@dataclass(slots=True)
class KVCache:
    """Keys and values of one model call.

    Attributes:
        rows: R, rows of the call.
        layers: per attention layer its keys and values, each (R, N + T, heads, head width).
        drawn: per row the step that last wrote it; None where nothing was written.
    """

    rows: int
    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    drawn: list[int | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start with nothing drawn."""
        self.drawn = [None] * self.rows

    def follows(self, rows: Sequence[int], step: int, length: int) -> bool:
        """Whether every one of `rows` was written by the step before `step`, over `length` tokens (image and text)."""
        whole = bool(self.layers) and self.layers[0][0].shape[1] == length
        return whole and all(self.drawn[row] == step - 1 for row in rows)

    def fill(self, rows: Sequence[int], layers: list[tuple[Tensor, Tensor]], step: int) -> None:
        """Keep what a dense step built: by reference for all rows, copied for some.

        Args:
            rows: the rows the step drew.
            layers: its keys and values, each (len(rows), N + T, heads, head width).
            step: the step.
        """
        if len(rows) == self.rows:
            self.layers = layers
        else:
            if not self.layers or self.layers[0][0].shape[1] != layers[0][0].shape[1]:
                self.forget()
                self.layers = [tuple(t.new_zeros(self.rows, *t.shape[1:]) for t in pair) for pair in layers]  # type: ignore[misc]
            index = torch.tensor(rows, device=layers[0][0].device)
            for mine, new in zip(self.layers, layers, strict=True):
                for kept, fresh in zip(mine, new, strict=True):
                    kept.index_copy_(0, index, fresh)
        self.stamp(rows, step)

    def stamp(self, rows: Sequence[int], step: int) -> None:
        """Remember that `step` wrote `rows`."""
        for row in rows:
            self.drawn[row] = step

    def forget(self) -> None:
        """Let the tensors go; the next masked step will run dense."""
        self.layers, self.drawn = [], [None] * self.rows

    def forget_before(self, step: int) -> None:
        """Let the tensors go if no row was written at `step` or after: no masked step can use them any more."""
        if all(drawn is None or drawn < step for drawn in self.drawn):
            self.forget()

    def copy(self) -> Self:
        """The same keys and values in tensors of their own."""
        twin = type(self)(self.rows, [(key.clone(), value.clone()) for key, value in self.layers])
        twin.drawn = list(self.drawn)
        return twin

    def bytes(self) -> int:
        """Memory held."""
        return sum(t.numel() * t.element_size() for pair in self.layers for t in pair)
