"""How close a picture is to the large model's picture of the same prompt and seed.

Pictures are uint8, (H, W, 3). PSNR is in decibels of the mean squared error over all pixels and channels. SSIM is that
of Wang et al. (2004) on a data range of 1: means, variances and covariance in a Gaussian window of 11 × 11 pixels
(σ 1.5), edges reflected, mean over places and channels: torchmetrics' number, in float64 (in float32 variances of flat
places are lost: it is off by 3e-4 there).
"""

from math import inf, log10

import numpy as np
from numpy.typing import NDArray

from .pictures import Picture

CEILING = 99.0  # dB, of equal pictures in means


def psnr(picture: Picture, reference: Picture) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures.

    Args:
        picture: (H, W, 3), uint8.
        reference: the same shape.
    """
    error = float(np.mean((picture.astype(np.float64) - reference.astype(np.float64)) ** 2))
    return inf if error == 0 else 10 * log10(255**2 / error)


def capped_psnr(picture: Picture, reference: Picture) -> float:
    """PSNR, at most 99 dB, so that means exist."""
    return min(psnr(picture, reference), CEILING)


def ssim(picture: Picture, reference: Picture) -> float:
    """Structural similarity, 1 for equal pictures.

    Args:
        picture: (H, W, 3), uint8; at least 6 pixels each way.
        reference: the same shape.
    """
    channels = range(picture.shape[2])  # one by one: their maps stay in a processor's cache
    return float(np.mean([_alike(picture[..., c] / 255, reference[..., c] / 255) for c in channels]))


def _alike(x: NDArray[np.float64], y: NDArray[np.float64]) -> np.float64:
    """SSIM of one channel, (H, W) each in 0 … 1."""
    from scipy.ndimage import correlate1d

    places = np.arange(-5, 6)
    window = np.exp(-(places**2) / (2 * 1.5**2))
    window /= window.sum()

    def blurred(image: NDArray[np.float64]) -> NDArray[np.float64]:
        return correlate1d(correlate1d(image, window, axis=0, mode="mirror"), window, axis=1, mode="mirror")

    mean_x, mean_y = blurred(x), blurred(y)
    variance_x, variance_y = (np.maximum(blurred(z * z) - mean**2, 0) for z, mean in ((x, mean_x), (y, mean_y)))
    covariance = blurred(x * y) - mean_x * mean_y
    alike = (2 * mean_x * mean_y + 0.01**2) * (2 * covariance + 0.03**2)
    most = (mean_x**2 + mean_y**2 + 0.01**2) * (variance_x + variance_y + 0.03**2)
    return (alike / most).mean()
