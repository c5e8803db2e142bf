"""What a scheduler's step tells: what went in, what came out, and the clean latent it points at."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """One step that a scheduler made, as the pipeline asked for it.

    Attributes:
        latent: x_i, images first.
        prediction: the model's output after guidance, of the latent's shape.
        sigma: σ_i, or None where the scheduler has none.
        returned: x_{i+1}.
        clean: d_i, the clean latent that the step points at (Eq. 10), float32; None where nobody can say.
    """

    latent: Tensor
    prediction: Tensor
    sigma: Tensor | float | None
    returned: Tensor
    clean: Tensor | None

    def drawn_as(self, change: Callable[[Tensor], Tensor] | None) -> Self:
        """The step with latents as the model draws them, where the scheduler's are others (see `family.Facts`)."""
        if change is None:
            return self
        clean = None if self.clean is None else change(self.clean)
        latent, prediction, returned = map(change, (self.latent, self.prediction, self.returned))
        return replace(self, latent=latent, prediction=prediction, returned=returned, clean=clean)
