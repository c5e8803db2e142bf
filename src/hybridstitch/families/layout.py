"""Which axes of a latent carry tokens, and how many of their entries make one.

    picture       (B, C, H, W)       axes (2, 3)     patch (2, 2)       N = H/2 · W/2
    packed        (B, N, C)          axes (1,)       patch (1,)         FLUX, LTX, Qwen-Image
    video         (B, C, F, H, W)    axes (2, 3, 4)  patch (1, 2, 2)    Wan

Tokens are counted along the axes in their order, the last one fastest.
"""

from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the tokens of a latent lie.

    Attributes:
        axes: of the latent, the batch's being 0.
        patch: entries of a token along each of them.
    """

    axes: tuple[int, ...]
    patch: tuple[int, ...]

    def grid(self, latent: Tensor) -> tuple[int, ...]:
        """Tokens along each axis."""
        return tuple(latent.shape[axis] // side for axis, side in zip(self.axes, self.patch, strict=True))

    def count(self, latent: Tensor) -> int:
        """N, tokens of one image."""
        return prod(self.grid(latent))

    def entries(self, latent: Tensor) -> int:
        """Entries of one token."""
        return latent[:1].numel() // self.count(latent)

    def sums(self, values: Tensor) -> Tensor:
        """Sum over each token's entries.

        Args:
            values: of a latent's shape.

        Returns:
            (B, N).
        """
        if self.axes == (2, 3) and self.patch[0] == self.patch[1]:  # the order of these sums is part of a preset
            return F.avg_pool2d(values.sum(1, keepdim=True), self.patch[0], divisor_override=1).flatten(1)
        kept, others = [0], []
        for axis in range(values.ndim - 1, 0, -1):  # from behind, so that the axes before stay where they are
            if axis in self.axes:
                values = values.unflatten(axis, (-1, self.patch[self.axes.index(axis)]))
        place = 0
        for axis in range(1, values.ndim - len(self.axes)):
            place += 1
            if axis in self.axes:
                kept.append(place)
                place += 1
            others.append(place)
        return values.permute(*kept, *others).flatten(len(kept)).sum(-1).flatten(1)

    def spread(self, marks: Tensor, like: Tensor) -> Tensor:
        """Marks of tokens as marks of entries.

        Args:
            marks: (B, N).
            like: of a latent's shape, of any B.

        Returns:
            of `marks`' dtype, broadcastable to a latent of B images.
        """
        marks = marks.unflatten(1, self.grid(like))
        for place, side in enumerate(self.patch, start=1):
            if side > 1:
                marks = marks.repeat_interleave(side, place)
        for axis in range(1, like.ndim):
            if axis not in self.axes:
                marks = marks.unsqueeze(axis)
        return marks

    def inside(self, tokens: Tensor, like: Tensor) -> Tensor:
        """Where some tokens lie.

        Args:
            tokens: indices, (B, K).
            like: of a latent's shape, of any B.

        Returns:
            bool, broadcastable to a latent of B images.
        """
        marks = torch.zeros(len(tokens), self.count(like), dtype=torch.bool, device=like.device)
        return self.spread(marks.scatter_(1, tokens, True), like)
