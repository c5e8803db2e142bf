"""What a call draws is put together here, before guidance: `v = where(mask, v_L, v_S)` for each branch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..families.layout import Layout
from ..families.rows import Rows


@dataclass(slots=True)
class Canvas:
    """The prediction being put together; it begins as the last one.

    Attributes:
        layout: of latents.
        value: (R, …), or None where nothing was drawn yet.
        ours: whether it may be written on.
    """

    layout: Layout
    value: Tensor | None
    ours: bool = False

    def lay(self, drawn: Tensor, rows: Rows, tokens: Tensor | None) -> None:
        """Lay what was drawn for some rows over what is there.

        Args:
            drawn: (len(rows), …).
            rows: whose.
            tokens: per image where, (images, K); None for everywhere.
        """
        if rows.whole and tokens is None:
            self.value, self.ours = drawn, True
            return
        total = rows.total * rows.branches
        if not self.ours:
            self.value = drawn.new_zeros(total, *drawn.shape[1:]) if self.value is None else self.value.clone()
            self.ours = True
        assert self.value is not None
        inside = None if tokens is None else self.layout.inside(tokens, drawn)
        whole = self.value.unflatten(0, (rows.branches, rows.total))
        fresh = drawn.unflatten(0, (rows.branches - rows.first, len(rows.images)))
        for place, image in enumerate(rows.images):
            mine, new = whole[:, image], fresh[:, place]  # (branches, …): a view, and as many branches as were drawn
            if rows.first:  # only the conditional branch: shift the others with it
                new = new + (mine - mine[-1:])
            mine.copy_(new if inside is None else torch.where(inside[place], new, mine))

    def copied(self) -> Tensor:
        """What is there, in memory of its own."""
        assert self.value is not None  # whoever asks lays a mask over something
        return self.value.clone()

    def shift(self, by: Tensor) -> None:
        """Move everything."""
        assert self.value is not None
        self.value, self.ours = self.value + by, True


def over(
    below: Tensor, drawn: Tensor, images: Sequence[int], tokens: Sequence[Tensor | None], layout: Layout
) -> Tensor:
    """What was drawn for some images inside their masks, over what is below.

    Args:
        below: (B, …).
        drawn: (len(images), …).
        images: which.
        tokens: of each where, (K,); None for everywhere.
        layout: of latents.
    """
    canvas = Canvas(layout, below)
    for place, (image, where) in enumerate(zip(images, tokens, strict=True)):
        rows = Rows(images=(image,), total=len(below), branches=1)
        canvas.lay(drawn[place, None], rows, None if where is None else where[None])
    assert canvas.value is not None
    return canvas.value
