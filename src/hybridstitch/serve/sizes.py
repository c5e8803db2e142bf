"""Sizes of pictures that a pair can draw, in pixels, as numbers that need no torch; `pair.limits` finds them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What a pair can draw.

    Attributes:
        multiple: of width and height.
        largest: side of the largest picture.
    """

    multiple: int
    largest: int

    def near(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size that can be drawn and is nearest to one that may not."""
        width, height = (min(max(round(side / self.multiple), 1) * self.multiple, self.largest) for side in size)
        return width, height

    def fault(self, size: tuple[int, int]) -> str | None:
        """Why a size cannot be drawn, with the nearest that can; None for one that can.

        Args:
            size: width and height.
        """
        width, height = size
        if any(side % self.multiple for side in size) or min(size) < 1:
            near = self.near(size)
            return (
                f"{width}x{height} was given; this pair draws multiples of {self.multiple} pixels "
                f"(VAE × patch): {near[0]}x{near[1]} is near"
            )
        if max(size) > self.largest:
            return f"{width}x{height} was given; this pair draws at most {self.largest} pixels a side"
        return None
