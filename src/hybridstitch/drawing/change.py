"""What a step changed (Eq. 9 and 10), always in float32, and which tokens it changed most.

    output    d_i, the clean latent a step points at (x_i − σ_i·v_i in flow matching), or x_{i+1} itself   (B, …)
    change    c_i = |d_i − d_{i−1}|                                                                       (B, …)
    distance  D_i, one number per image                                                                   (B,)
    score     mean of c_i over a token's entries                                                          (B, N)

Where tokens lie in a latent is the family's `Layout`. Tokens that someone overwrote between two steps are *given*:
their score is 0 and they are left out of the mean.
"""

import torch
from torch import Tensor

from ..families.layout import Layout
from ..policies.policy import Reduction, Signal
from .stepped import Stepped

SMALLEST = 1e-6


def given_tokens(returned: Tensor, received: Tensor, layout: Layout) -> Tensor:
    """Tokens overwritten between two steps (inpaint blending, callbacks).

    Args:
        returned: what the scheduler returned, (B, …).
        received: what entered the next step, (B, …).
        layout: of latents.

    Returns:
        (B, N), bool.
    """
    return layout.sums((returned.to(received.dtype) != received).float()) > 0


def distance(
    change: Tensor, output: Tensor, layout: Layout, reduction: Reduction, given: Tensor | None = None
) -> Tensor:
    """Eq. 9: how far an image moved, relative to where it is.

    Args:
        change: c_i, (B, …), float32.
        output: d_i, (B, …), float32.
        layout: of latents.
        reduction: "token": mean over tokens of Σ_token c / Σ_token |d|; "norm": Σ c / Σ |d|;
            "elementwise": mean of c / max(|d|, 1e-6).
        given: tokens left out, (B, N), or None.

    Returns:
        (B,), float32; NaN for an image whose tokens are all given.
    """
    if reduction == "elementwise":
        ratio = layout.sums(change / output.abs().clamp_min(SMALLEST)) / layout.entries(change)
        return _mean(ratio, given)
    moved, size = layout.sums(change), layout.sums(output.abs())  # (B, N) each
    if reduction == "token":
        return _mean(moved / size.clamp_min(SMALLEST), given)
    return _mean(moved, given) / _mean(size, given).clamp_min(SMALLEST)


def scores(change: Tensor, layout: Layout, given: Tensor | None = None) -> Tensor:
    """How much each token changed: the mean of c_i over its entries; 0 where given.

    Args:
        change: c_i, (B, …), float32.
        layout: of latents.
        given: tokens overwritten from outside, (B, N), or None.

    Returns:
        (B, N), float32.
    """
    mean = layout.sums(change) / layout.entries(change)
    return mean if given is None else mean.masked_fill(given, 0.0)


def busiest(score: Tensor, count: int) -> Tensor:
    """The `count` tokens of largest score, ties to the lower index.

    Args:
        score: (B, N).
        count: K.

    Returns:
        token indices, (B, K), ascending.
    """
    order = torch.sort(score, dim=-1, descending=True, stable=True).indices
    return order[:, :count].sort(-1).values


def _mean(values: Tensor, given: Tensor | None) -> Tensor:
    if given is None:
        return values.mean(-1)
    kept = ~given
    return (values * kept).sum(-1) / kept.sum(-1)


class Meter:
    """What consecutive steps of one run changed, one step at a time.

    Attributes:
        output: d_i of the last observed step, (B, …), float32.
        change: c_i of the last observed step, or None before there are two outputs.
        given: tokens overwritten since, (B, N), or None where none could be.
    """

    def __init__(self, signal: Signal, reduction: Reduction, layout: Layout) -> None:
        """Start with nothing observed.

        Args:
            signal: "denoised", "latent" or "prediction".
            reduction: see `distance`.
            layout: of latents.
        """
        self.signal: Signal = signal
        self.reduction: Reduction = reduction
        self.layout = layout
        self.output: Tensor | None = None
        self.change: Tensor | None = None
        self.given: Tensor | None = None
        self._returned: Tensor | None = None

    def observe(self, step: Stepped) -> None:
        """Take in a step that the scheduler made, one that points at a clean latent."""
        returned = step.returned.clone()  # a callback may write into the scheduler's tensor
        output, before = step.clean, self.output
        if self.signal == "latent":
            output, before = returned.float(), step.latent.float() if before is None else before
        elif self.signal == "prediction":
            output = step.prediction.float()
        assert output is not None
        self.change = None if before is None else (output - before).abs()
        self.output, self.given, self._returned = output, None, returned

    def receive(self, latent: Tensor) -> None:
        """Compare what enters the next step with what the scheduler returned.

        Args:
            latent: the model's input, images first; further rows, channels and tokens (guidance, references) follow.
        """
        if self._returned is not None:
            same = latent[tuple(slice(size) for size in self._returned.shape)]
            self.given = given_tokens(self._returned, same, self.layout)

    def read(self) -> Tensor:
        """D of the last observed step and whether its output is finite.

        Returns:
            (2, B), float32, on the device: D (NaN where there is none) and 1 or 0.
        """
        assert self.output is not None
        finite = torch.isfinite(self.output).flatten(1).all(1).float()
        if self.change is None:
            return torch.stack([torch.full_like(finite, torch.nan), finite])
        return torch.stack([distance(self.change, self.output, self.layout, self.reduction, self.given), finite])

    def busiest(self, image: int, count: int) -> Tensor:
        """The tokens of one image that the last step changed most.

        Args:
            image: its index.
            count: K.

        Returns:
            (K,), ascending.
        """
        assert self.change is not None
        given = None if self.given is None else self.given[image, None]
        return busiest(scores(self.change[image, None], self.layout, given), count)[0]
