"""How close a picture is to the large model's picture of the same prompt and seed.

Pictures are uint8, (H, W, 3). PSNR is in decibels of the mean squared error over all pixels and channels. SSIM is that
of Wang et al. (2004) on a data range of 1: means, variances and covariance in a Gaussian window of 11 × 11 pixels
(σ 1.5), edges reflected, mean over places and channels: torchmetrics' number.
"""

from math import inf, log10

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from .pictures import Picture


def psnr(picture: Picture, reference: Picture) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures.

    Args:
        picture: (H, W, 3), uint8.
        reference: the same shape.
    """
    error = float(np.mean((picture.astype(np.float64) - reference.astype(np.float64)) ** 2))
    return inf if error == 0 else 10 * log10(255**2 / error)


def ssim(picture: Picture, reference: Picture) -> float:
    """Structural similarity, 1 for equal pictures.

    Args:
        picture: (H, W, 3), uint8; at least 6 pixels each way.
        reference: the same shape.
    """
    x, y = (torch.from_numpy(p.copy()).permute(2, 0, 1)[:, None].double() / 255 for p in (picture, reference))
    places = torch.arange(-5, 6, dtype=torch.float64)
    window = torch.exp(-(places**2) / (2 * 1.5**2))
    window /= window.sum()

    def blurred(image: Tensor) -> Tensor:
        padded = pad(image, (5, 5, 5, 5), mode="reflect")
        return conv2d(conv2d(padded, window.view(1, 1, 11, 1)), window.view(1, 1, 1, 11))

    mean_x, mean_y = blurred(x), blurred(y)
    variance_x, variance_y = ((blurred(z * z) - mean**2).clamp(min=0) for z, mean in ((x, mean_x), (y, mean_y)))
    covariance = blurred(x * y) - mean_x * mean_y
    alike = (2 * mean_x * mean_y + 0.01**2) * (2 * covariance + 0.03**2)
    most = (mean_x**2 + mean_y**2 + 0.01**2) * (variance_x + variance_y + 0.03**2)
    return float((alike / most).mean())
