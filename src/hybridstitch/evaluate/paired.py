"""Metrics of pairs: each picture and its reference, most often the large model's picture of the same prompt and seed.

PSNR and SSIM are those of `closeness`; LPIPS is the lpips package's, on [−1, 1], unresized. LPIPS-mini is built like it
on the miniature CLIP, without learned weights: mean over layers and patches of |â − b̂|², â and b̂ unit activations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .pictures import Picture, References, ScoreError
from .scores import Better, Scores, Wants, check, mean_score
from .towers import EVAL, MiniTower, check_weights, first_line


@dataclass(frozen=True, slots=True)
class Closeness:
    """Mean of a distance, or similarity, of each picture and its reference.

    Attributes:
        name: as printed.
        better: "higher" or "lower".
        numerics: dtype and range.
        measure: (picture, reference) → number.
    """

    name: str
    better: Better
    numerics: str
    measure: Callable[[Picture, Picture], float]
    wants: ClassVar[Wants] = "pairs"

    def __call__(self, images: list[Picture], prompts: list[str], references: References | None = None) -> Scores:
        """See `scores.Metric`."""
        check(images, prompts, references, self.wants, self.name)
        assert references is not None
        return mean_score(
            np.array([self.measure(*pair) for pair in zip(images, references.pictures, strict=True)]),
            metric=self.name,
            better=self.better,
            references=references.label,
            numerics=self.numerics,
        )


def lpips(weights: str | Path | None = None, device: str | torch.device = "cpu") -> Closeness:
    """LPIPS 0.1 on AlexNet.

    Args:
        weights: torchvision's AlexNet state dict; None downloads it. The learned heads are in the package.
        device: where it runs.

    Raises:
        ScoreError: lpips, or the weights, cannot be had.
    """
    found = check_weights("AlexNet", weights)
    try:
        from lpips import LPIPS  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError) as error:  # torchvision of another torch: a RuntimeError
        raise ScoreError(f"LPIPS needs lpips, which cannot be imported ({first_line(error)}): {EVAL}") from error
    try:
        network = LPIPS(net="alex", pnet_rand=weights is not None, verbose=False)
        if weights is not None:  # net.slice2.3.weight is torchvision's features.3.weight
            own = network.net.state_dict()
            network.net.load_state_dict({key: found[f"features.{key.partition('.')[2]}"] for key in own})
    except KeyError as error:
        raise ScoreError(f"{weights} holds no AlexNet of torchvision: {error} is missing") from error
    except (OSError, RuntimeError) as error:
        raise ScoreError(
            f"the AlexNet weights cannot be loaded ({first_line(error)}): download torchvision's "
            "alexnet-owt-7be5be79.pth and give its path, weights={'lpips': PATH}"
        ) from error
    network = network.to(device).eval()

    def measure(picture: Picture, reference: Picture) -> float:
        both = [torch.from_numpy(p.copy()).permute(2, 0, 1)[None].to(device).float() for p in (picture, reference)]
        with torch.inference_mode():
            return float(network(both[0] / 127.5 - 1, both[1] / 127.5 - 1))

    source = "torchvision's weights" if weights is None else str(weights)
    return Closeness("LPIPS", "lower", f"lpips 0.1, AlexNet ({source}), [−1, 1], unresized, float32", measure)


def mini_lpips(tower: MiniTower) -> Closeness:
    """LPIPS-mini: see the module.

    Args:
        tower: the miniature CLIP.
    """

    def measure(picture: Picture, reference: Picture) -> float:
        layers = [F.normalize(layer.double(), dim=-1) for layer in tower.layers([picture, reference])]
        return float(torch.stack([_apart(layer) for layer in layers]).mean())

    numerics = "miniature CLIP's activations, bicubic to 128 px from uint8, float32, no learned weights"
    return Closeness("LPIPS-mini", "lower", numerics, measure)


def _apart(layer: Tensor) -> Tensor:
    """Mean over patches of |â − b̂|²: (2, patches, width) → ()."""
    return (layer[0] - layer[1]).square().sum(-1).mean()
