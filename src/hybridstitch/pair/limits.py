"""What a pair can draw, in pixels, read from its configurations; nothing here needs torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a pair can draw, in pixels.

    Attributes:
        multiple: of width and height.
        native: side of a picture when no size is asked for.
        largest: side of the largest picture, which the position embedding sets.
    """

    multiple: int
    native: int
    largest: int

    @classmethod
    def of(cls, vae: Mapping[str, Any], transformer: Mapping[str, Any]) -> "Limits":
        """From the configurations of the two parts that decide."""
        scale, patch = 2 ** (len(vae["block_out_channels"]) - 1), transformer["patch_size"]
        return cls(
            multiple=scale * patch,
            native=scale * transformer["sample_size"],
            largest=scale * patch * transformer["pos_embed_max_size"],
        )

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
