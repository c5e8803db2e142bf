"""How close a picture is to the large model's picture of the same prompt and seed.

Pictures are uint8, (H, W, 3). PSNR is in decibels of the mean squared error over all pixels and channels; SSIM is
torchmetrics', on a data range of 1.
"""

from math import inf, log10
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


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
        picture: (H, W, 3), uint8.
        reference: the same shape.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    both = [torch.from_numpy(p.copy()).permute(2, 0, 1)[None].double() / 255 for p in (picture, reference)]
    similarity: Any = structural_similarity_index_measure(both[0], both[1], data_range=1.0)
    return float(similarity)
