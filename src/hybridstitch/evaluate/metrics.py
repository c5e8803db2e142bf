"""All metrics, by name.

    metrics = open_metrics(["PSNR", "FD-mini", "CLIP-mini"])
    scores = {name: metric(images, prompts, references[metric.wants]) for name, metric in metrics.items()}

MINI need nothing but the package; the others need the `eval` extra and weights from a path or the hub.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path

import torch

from ..errors import nearest
from .closeness import capped_psnr, ssim
from .distributions import Frechet, Kernel
from .fit import Fit
from .paired import Closeness, lpips, mini_lpips
from .pictures import ScoreError
from .scores import Metric
from .towers import Clip, Inception, MiniTower, Remembering

PIXELS = ("PSNR", "SSIM")
MINI = ("FD-mini", "KID-mini", "CLIP-mini", "LPIPS-mini")
FULL = ("FID", "KID", "CLIP", "LPIPS")


def open_metrics(
    names: Iterable[str],
    *,
    weights: Mapping[str, str | Path] | None = None,
    device: str | torch.device = "cpu",
    on_missing: Callable[[str, ScoreError], None] | None = None,
) -> dict[str, Metric]:
    """Metrics ready to be called; those that share a network share one copy, which looks at each picture once.

    Args:
        names: of PIXELS, MINI and FULL.
        weights: paths for "inception" (torch-fidelity's file), "clip" (folder or hub id), "lpips" (torchvision's
            AlexNet) and "mini" (a pipeline folder with `clip/`); what is left out is downloaded, or shipped.
        device: where networks run.
        on_missing: called with the name of a metric whose package or weights cannot be had, and why; it is left out.
            Without it that is an error.

    Raises:
        ScoreError: an unknown name; a package or weights that cannot be had.
    """
    paths = dict(weights or {})
    if strange := sorted(paths.keys() - {"inception", "clip", "lpips", "mini"}):
        raise ScoreError(f"weights of {strange[0]!r}? {nearest(strange[0], ('inception', 'clip', 'lpips', 'mini'))}")

    @cache
    def mini() -> MiniTower:
        return MiniTower.load(paths.get("mini"), device)

    @cache
    def looked(tower: str) -> Remembering:
        loaders = {
            "mini": mini,
            "inception": lambda: Inception.load(paths.get("inception"), device),
            "clip": lambda: Clip.load(paths.get("clip"), device),
        }
        return Remembering(loaders[tower]())

    openers = {
        "PSNR": lambda: Closeness("PSNR", "higher", "uint8, dB of the mean over pixels, at most 99", capped_psnr),
        "SSIM": lambda: Closeness("SSIM", "higher", "11 × 11 Gaussian window, data range 1, float64", ssim),
        "FD-mini": lambda: Frechet("FD-mini", looked("mini")),
        "KID-mini": lambda: Kernel("KID-mini", looked("mini")),
        "CLIP-mini": lambda: Fit("CLIP-mini", looked("mini")),
        "LPIPS-mini": lambda: mini_lpips(mini()),
        "FID": lambda: Frechet("FID", looked("inception")),
        "KID": lambda: Kernel("KID", looked("inception")),
        "CLIP": lambda: Fit("CLIP", looked("clip")),
        "LPIPS": lambda: lpips(paths.get("lpips"), device),
    }
    opened: dict[str, Metric] = {}
    for name in names:
        if name not in openers:
            raise ScoreError(f"there is no metric {name!r}; {nearest(name, openers)}")
        try:
            opened[name] = openers[name]()
        except ScoreError as error:
            if on_missing is None:
                raise
            on_missing(name, error)
    return opened
