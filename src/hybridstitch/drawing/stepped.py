"""What a scheduler's step tells: what went in, what came out, and the clean latent it points at."""

from dataclasses import dataclass

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
