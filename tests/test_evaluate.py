"""Closeness and intervals against numbers computed by hand."""

import math

import numpy as np
import pytest
import torch

from hybridstitch.evaluate.closeness import psnr, ssim

PICTURE = np.random.default_rng(0).integers(0, 250, (32, 32, 3), dtype=np.uint8)


def test_psnr_is_that_of_the_mean_squared_error():
    assert psnr(PICTURE, PICTURE) == math.inf
    assert psnr(PICTURE + np.uint8(5), PICTURE) == pytest.approx(20 * math.log10(255 / 5))


def test_ssim_is_one_for_equal_pictures_and_falls_with_noise():
    noisy = np.clip(PICTURE.astype(int) + np.random.default_rng(1).integers(-60, 60, PICTURE.shape), 0, 255)
    assert ssim(PICTURE, PICTURE) == pytest.approx(1.0)
    assert 0.3 < ssim(noisy.astype(np.uint8), PICTURE) < 0.97


def test_ssim_is_that_of_torchmetrics():
    metrics = pytest.importorskip("torchmetrics.functional.image")
    smooth = np.add.outer(np.arange(40), 3 * np.arange(56))[..., None].repeat(3, 2).astype(np.uint8)
    for other in (np.roll(smooth, 2, 0), 255 - smooth, smooth // 2):
        both = [torch.from_numpy(p.copy()).permute(2, 0, 1)[None].double() / 255 for p in (other, smooth)]
        theirs = metrics.structural_similarity_index_measure(*both, data_range=1.0)
        assert ssim(other, smooth) == pytest.approx(float(theirs), abs=1e-9)
