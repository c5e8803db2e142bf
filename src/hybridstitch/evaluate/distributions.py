"""FD and KID: how far apart two sets of features lie.

    FD   = |μ_x − μ_y|² + tr(Σ_x + Σ_y − 2(Σ_x Σ_y)^½)          Fréchet distance of two normal distributions
    KID  = mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) − 2 mean k(x_i, y_j),   k(a, b) = (a·b / D + 1)³

With matched references (one a prompt, in order) the last mean leaves out i = j, too: x_i and y_i share a prompt and
are not independent. KID is then the one-sample statistic of Gretton et al. (2012, eq. 3); neither has a bias at any N.
FD has one that falls with 1/N and is never subtracted here: compare at equal N only.

Features are (N, D), float64. With FᵀF = Σ, tr(Σ_x Σ_y)^½ is the sum of the singular values of F_x F_yᵀ, so N ≤ D, where
Σ_x is singular, is no special case.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..measure.intervals import Values, resampled
from .pictures import Picture, References
from .scores import Scores, Wants, check
from .towers import Tower


@dataclass(frozen=True, slots=True)
class Frechet:
    """FD of pictures and references in the features of a tower: FID with Inception.

    Attributes:
        name: as printed.
        tower: pictures → features.
        resamples: of the bootstrap; with matched references prompts are drawn again in both sets. Resampling repeats
            pictures and so raises FD: replicates are moved to have the value of all N as their mean.
    """

    name: str
    tower: Tower
    resamples: int = 200
    wants: ClassVar[Wants] = "set"

    def __call__(self, images: list[Picture], prompts: list[str], references: References | None = None) -> Scores:
        """See `scores.Metric`."""
        check(images, prompts, references, self.wants, self.name)
        assert references is not None
        x, y = self.tower.features(images), self.tower.features(references.pictures)
        number, width = x.shape
        value = frechet(x, y)
        picks = torch.from_numpy(resampled(number, self.resamples)).to(x.device)
        if references.matched:
            replicates = np.array([frechet(x[rows], y[rows]) for rows in picks])
        else:
            replicates = resampled_frechet(x, y, picks)
        few = min(number, len(y))
        singular = f"{few} pictures span {few - 1} of {width} dimensions: mostly bias, compare at equal N only"
        return Scores(
            metric=self.name,
            better="lower",
            number=number,
            references=references.label,
            numerics=f"{self.tower.numerics}; covariance over N − 1, float64",
            value=value,
            replicates=value + replicates - replicates.mean(),
            note=singular if few <= width else "",
        )


@dataclass(frozen=True, slots=True)
class Kernel:
    """KID of pictures and references in the features of a tower, over all pairs instead of random subsets.

    Attributes:
        name: as printed.
        tower: pictures → features.
        resamples: of the bootstrap.
    """

    name: str
    tower: Tower
    resamples: int = 1000
    wants: ClassVar[Wants] = "set"

    def __call__(self, images: list[Picture], prompts: list[str], references: References | None = None) -> Scores:
        """See `scores.Metric`."""
        check(images, prompts, references, self.wants, self.name)
        assert references is not None
        x, y = self.tower.features(images), self.tower.features(references.pictures)
        weights = torch.stack(
            [torch.bincount(p, minlength=len(x)) for p in torch.from_numpy(resampled(len(x), self.resamples))]
        )
        values = kid(x, y, torch.cat([torch.ones_like(weights[:1]), weights]), matched=references.matched)
        return Scores(
            metric=self.name,
            better="lower",
            number=len(x),
            references=references.label,
            numerics=f"{self.tower.numerics}; kernel (a·b/D + 1)³ over all pairs, float64",
            value=float(values[0]),
            replicates=values[1:],
        )


def frechet(x: Tensor, y: Tensor) -> float:
    """FD of two sets of features.

    Args:
        x: (N, D), float64.
        y: (M, D), float64.
    """
    return _distance(x, y, factor(x) @ factor(y).T)


def resampled_frechet(x: Tensor, y: Tensor, picks: Tensor) -> Values:
    """FD of resampled pictures and the same references; those are factored once.

    Args:
        x: (N, D), float64.
        y: (M, D), float64.
        picks: (R, N), rows of x.

    Returns:
        (R,).
    """
    across = x @ factor(y).T  # (N, min(M, D)): no replicate needs more of x than this and its mean and variance
    return np.array([_distance(x[rows], y, _centred(across[rows])) for rows in picks])


def _distance(x: Tensor, y: Tensor, product: Tensor) -> float:
    """FD, given F_x F_yᵀ."""
    if product.shape[0] < product.shape[1]:
        product = product.T
    shared = torch.linalg.eigvalsh(product.T @ product).clamp_min(0).sqrt().sum()
    return float((x.mean(0) - y.mean(0)).square().sum() + x.var(0).sum() + y.var(0).sum() - 2 * shared)


def factor(x: Tensor) -> Tensor:
    """F with FᵀF = Σ, the covariance over N − 1: (N, D) → (min(N, D), D)."""
    centred = _centred(x)
    return centred if len(x) <= x.shape[1] else torch.linalg.qr(centred, mode="r").R


def _centred(x: Tensor) -> Tensor:
    """An F of N rows."""
    return (x - x.mean(0)) / (len(x) - 1) ** 0.5


def kid(x: Tensor, y: Tensor, weights: Tensor, *, matched: bool) -> Values:
    """KID of two sets of features, for several weightings of x's pictures.

    Args:
        x: (N, D), float64.
        y: (M, D), float64; N of them if matched.
        weights: (R, N): how often each picture counts; two copies of one picture are no pair.
        matched: whether x_i and y_i share a prompt; they are weighted together, then.

    Returns:
        (R,).
    """
    w = weights.to(x)  # (R, N)
    pairs = w.sum(1).square() - w.square().sum(1)  # (R,)

    def among(kernel: Tensor) -> Tensor:
        """Weighted mean of k(i, j) over i ≠ j."""
        return ((w @ (kernel - kernel.diag().diag())) * w).sum(1) / pairs

    if matched:
        across = cubic(x, y)
        return among(cubic(x, x) + cubic(y, y) - across - across.T).cpu().numpy()
    own = cubic(y, y)
    within = (own.sum() - own.trace()) / (len(y) * (len(y) - 1))
    return (among(cubic(x, x)) + within - 2 * w @ cubic(x, y).mean(1) / w.sum(1)).cpu().numpy()


def cubic(a: Tensor, b: Tensor) -> Tensor:
    """KID's kernel, (a·b / D + 1)³: (N, D) and (M, D) → (N, M)."""
    return (a @ b.T / a.shape[1] + 1) ** 3
