"""A quality guard: what makes a step fall back to the large model, everywhere, instead of being drawn as decided.

    pipe.transformer.guard = Guard()                         or stitch(…, guard=True), which knows the recipe's ranges

A prediction that is NaN or infinite is drawn again by the large model before the scheduler sees it; a mask whose tokens
did not change at all would be an arbitrary one; and a distance (Eq. 9) far from all that were seen when the policy
was calibrated says that its decisions do not hold for this picture. Each such step says why in the trace. Guarded
runs read one flag and one distance a step on the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass

NOT_FINITE = "the prediction came out NaN or infinite: large model, dense"
NOTHING_CHANGED = "the mask covers nothing that changed: large model, dense"
OUT_OF_RANGE = "D left the calibrated range: large model, dense"

Band = tuple[float, float] | None
ROUNDING = 1e-6  # D of a repeated prediction is 0 but for rounding, and says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What a run is held to.

    Attributes:
        bands: per step the smallest and largest D of calibration, None where there was none; empty holds to no range.
            A band below `ROUNDING` counts as none.
        slack: factor by which D may leave its band.
    """

    bands: tuple[Band, ...] = ()
    slack: float = 2.0

    def out_of_range(self, step: int, distance: float | None) -> bool:
        """Whether D of a step is far from all that were seen.

        Args:
            step: the step that was drawn.
            distance: its D, None where there is none.
        """
        band = self.bands[step] if step < len(self.bands) else None
        if band is None or distance is None or band[1] < ROUNDING:
            return False
        return not band[0] / self.slack <= distance <= band[1] * self.slack

    def looks(self, masks: Sequence[object]) -> bool:
        """Whether distances have to be read for a step with these masks, None where an image has none."""
        return bool(self.bands) or any(mask is not None for mask in masks)

    def objections(self, distances: Sequence[Sequence[float | None]], masks: Sequence[object]) -> list[str | None]:
        """Per image why the step about to be drawn is not drawn as decided.

        Args:
            distances: per image its D so far.
            masks: per image the tokens that were chosen by it, or None.
        """
        found: list[str | None] = [None] * len(masks)
        for image, (seen, mask) in enumerate(zip(distances, masks, strict=True)):
            if seen and self.out_of_range(len(seen) - 1, seen[-1]):
                found[image] = OUT_OF_RANGE
            elif mask is not None and len(seen) > 1 and not seen[-1]:  # 0, or all tokens were overwritten
                found[image] = NOTHING_CHANGED
        return found
