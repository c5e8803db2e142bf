"""Rows of one call of a transformer: some images, all branches or the conditional one.

A pipeline gives R = branches × images rows, branch by branch: [u_1 … u_B, c_1 … c_B]. The rows of one image are a
slice with a step, so that a view serves; those of several are the slices of each. No index is sent to the device.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Part = tuple[slice, slice]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Which rows of a call.

    Attributes:
        images: which images, ascending.
        total: B, images of the call.
        branches: of the call.
        first: the first branch among them; `branches - 1` for the conditional one only.
    """

    images: tuple[int, ...]
    total: int
    branches: int
    first: int = 0

    def __len__(self) -> int:
        """How many rows."""
        return len(self.images) * (self.branches - self.first)

    @property
    def whole(self) -> bool:
        """Whether these are all rows of the call."""
        return self.first == 0 and len(self.images) == self.total

    @property
    def numbers(self) -> list[int]:
        """Their places in the call, in its order."""
        return [b * self.total + image for b in range(self.first, self.branches) for image in self.images]

    @property
    def parts(self) -> tuple[Part, ...]:
        """Slices of the call's rows, each with the slice of these rows that it is."""
        if len(self.images) == self.total:
            return ((slice(self.first * self.total, self.branches * self.total), slice(None)),)
        begin, end = self.first * self.total, self.branches * self.total
        count = len(self.images)
        return tuple(
            (slice(begin + image, end, self.total), slice(place, None, count))
            for place, image in enumerate(self.images)
        )

    def take(self, value: Tensor) -> Tensor:
        """These rows of a tensor of R rows, side by side in memory: the tensor itself where these are all.

        Args:
            value: (R, …).

        Returns:
            (len(self), …).
        """
        if self.whole:
            return value
        return torch.cat([value[number : number + 1] for number in self.numbers])

    def pick(self, value: list[Any] | tuple[Any, ...]) -> list[Any] | tuple[Any, ...]:
        """These rows of a list of R."""
        return value if self.whole else type(value)(value[number] for number in self.numbers)

    def index(self, device: torch.device) -> Tensor:
        """Their places in the call as a tensor, (len(self),), made on the device."""
        return self.take(torch.arange(self.total * self.branches, device=device))
