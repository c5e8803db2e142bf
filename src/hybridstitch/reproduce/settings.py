"""What is reproduced: a pair, prompts, how they are drawn, and the folder that everything goes to.

OUT/config.json          what decides the pictures; another config needs another folder
OUT/calibration.json     thresholds of this pair, and the curves they were read from
OUT/raw.csv              a row for each picture: `COLUMNS`
OUT/pictures/METHOD/0007.png    picture 7 of a method
OUT/latency.csv          a row for each timed call: `TIMED`
OUT/tables/table1.md, .csv, .json
OUT/figures/fig6.png, .svg, .csv
OUT/report.md            the questions, answered from the data
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import HybridStitchError

COLUMNS = {
    "method": "name of the row, as in the tables",
    "image": "0 … n−1: which prompt; the same noise in every method",
    "prompt": "what was drawn",
    "seed": "of the noise",
    "steps": "T of this method",
    "policy": "who drew what, as text",
    "switches": "steps at which stages 1, 2, … began, joined by '/'",
    "cost": "of the denoising loop by the cost model, in dense steps of the large model",
    "pixels": "the beginning of the SHA-256 of its RGB bytes",
    "psnr": "dB to the large model's picture of T steps, at most 99; scores are filled in when all is drawn",
    "ssim": "to the same picture",
    "lpips": "to the same picture (LPIPS-mini for the miniature pair)",
    "clip": "cosine of picture and prompt (CLIP-mini for the miniature pair)",
}
TIMED = {
    "method": "name of the row, as in the tables",
    "image": "which prompt",
    "denoising_seconds": "wall time of the denoising loop",
    "total_seconds": "wall time from the prompt to the picture",
    "predicted_seconds": "of the denoising loop, by the cost model",
}


class ReproductionError(HybridStitchError, ValueError):
    """A reproduction that cannot be meant, or a folder that it cannot go on in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One reproduction.

    Attributes:
        pair, small: as the user named them.
        mini: whether it is a miniature pair, so that its own scores and true scenes serve.
        open: opens the stitched pipeline; can be sent to another process.
        models: what the names stand for, see `identity.identity`.
        prompts: of the quality part, n of them; picture k is drawn from `seed + k`.
        origin: where the prompts come from, and their hash.
        latency_n: prompts that are timed, the first of `prompts`.
        seed, steps, guidance: of the noise, T, and the scale of classifier-free guidance.
        size: width and height in pixels.
        device, dtype: where, and in what precision.
        calibrate: choose thresholds for this pair instead of taking the paper's.
        weights: of scores, by name, as `evaluate.metrics.open_metrics` takes them; paths.
        real: folder of real pictures that FID is measured against; None where there are none.
        out: the folder.
    """

    pair: str
    small: str | None
    mini: bool
    open: Callable[[], Any]
    models: Mapping[str, str]
    prompts: tuple[str, ...]
    origin: Mapping[str, Any]
    latency_n: int
    seed: int
    steps: int
    guidance: float
    size: tuple[int, int]
    device: str
    dtype: str
    calibrate: bool
    weights: Mapping[str, str]
    real: Path | None
    out: Path

    @property
    def n(self) -> int:
        """Pictures of each method."""
        return len(self.prompts)

    @property
    def raw(self) -> Path:
        """A row for each picture."""
        return self.out / "raw.csv"

    @property
    def latency(self) -> Path:
        """A row for each timed call."""
        return self.out / "latency.csv"

    @property
    def figures(self) -> Path:
        """Where figures go, each as PNG, SVG and the CSV it was drawn from."""
        return self.out / "figures"

    @property
    def tables(self) -> Path:
        """Where tables go."""
        return self.out / "tables"

    def call(self, image: int) -> dict[str, Any]:
        """Prompt, guidance, seed and size of a picture, as `prepare`, `follow` and `calls` take them.

        Args:
            image: 0 … n−1.
        """
        width, height = self.size
        return {
            "prompt": self.prompts[image],
            "guidance": self.guidance,
            "seed": self.seed + image,
            "width": width,
            "height": height,
        }

    def picture(self, method: str, image: int) -> Path:
        """The file of a picture.

        Args:
            method: name of the row.
            image: 0 … n−1.
        """
        return self.out / "pictures" / folder_of(method) / f"{image:04}.png"


def folder_of(method: str) -> str:
    """A method's name as a folder's: "L2 H2@0.15 S2" is l2-h2@0.15-s2."""
    return "-".join(method.lower().replace("*", "x").replace("%", "p").split())
