"""Keys and values of the large model, by layer, image and guidance branch.

A memory (R, length, heads, head width) a layer lasts for the run, R rows = branches × images in the order the pipeline
gives them, `length` all tokens that are attended to. A dense step fills it, a masked step writes the keys and values
of its tokens into it, in place. Each row knows the step that last drew it: a masked step may only continue what the
previous step left.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from torch import Tensor


@dataclass(slots=True)
class KVCache:
    """Keys and values of one model call.

    Attributes:
        rows: R, rows of the call.
        layers: per attention layer its keys and values, each (R, length, heads, head width).
        drawn: per row the step that last wrote it; None where nothing was written.
        lasting: keep the memory when its content is forgotten: captured graphs know its address.
    """

    rows: int
    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    drawn: list[int | None] = field(default_factory=list)
    lasting: bool = False

    def __post_init__(self) -> None:
        """Start with nothing drawn."""
        self.drawn = [None] * self.rows

    def follows(self, rows: Sequence[int], step: int, length: int) -> bool:
        """Whether every one of `rows` was written by the step before `step`, over `length` tokens (image and text).

        A step that is drawn again, for another image's sake, finds its own.
        """
        return self.fits(length) and all(self.drawn[row] in (step - 1, step) for row in rows)

    def fits(self, length: int) -> bool:
        """Whether there is memory for `length` tokens, image and text."""
        return bool(self.layers) and self.layers[0][0].shape[1] == length

    def hold(self, layers: list[tuple[Tensor, Tensor]]) -> None:
        """Take memory that nothing was written into yet.

        Args:
            layers: keys and values, each (R, length, heads, head width).
        """
        self.forget()
        self.layers = layers

    def stamp(self, rows: Sequence[int], step: int | None) -> None:
        """Remember that `step` wrote `rows`; None: that they are of no use."""
        for row in rows:
            self.drawn[row] = step

    def forget(self) -> None:
        """Let the tensors go, or only their content; the next masked step will run dense."""
        self.layers, self.drawn = self.layers if self.lasting else [], [None] * self.rows

    def stale(self, step: int) -> bool:
        """Whether no row was written at `step` or after: a masked step after it has nothing to continue."""
        return all(drawn is None or drawn < step for drawn in self.drawn)

    def copy(self) -> Self:
        """The same keys and values in tensors of their own."""
        twin = type(self)(self.rows, [(key.clone(), value.clone()) for key, value in self.layers])
        twin.drawn = list(self.drawn)
        return twin

    def bytes(self) -> int:
        """Memory held."""
        return sum(t.numel() * t.element_size() for pair in self.layers for t in pair)
