"""What was drawn, as plain data: a `Take` is one picture with its trace, an `Exhibit` one beside the large model's."""

from dataclasses import dataclass
from math import inf
from pathlib import Path

import numpy as np
from PIL import Image

from ..evaluate.closeness import psnr
from ..pair.decoding import in_one
from ..policies.methods import HybridStitch
from ..policies.policy import Policy
from ..policies.srdiffusion import SRDiffusion
from ..policies.trace import Trace
from .clip import FPS, latent_frame, shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """One picture or video.

    Attributes:
        image: as saved; of a video its middle frame.
        seconds: from the prompt to the picture, text encoders and decoder included.
        trace: who drew what, of this one image.
        frames: (step, the picture as it was expected then), ascending; empty unless asked for. Of a video the first,
            middle and last frame, one below the other.
        path: where it lies.
        clip: the frames of a video; empty for a picture.
        fps: its frames a second.
        scheduler: the class that stepped.
    """

    image: Image.Image
    seconds: float
    trace: Trace
    frames: tuple[tuple[int, Image.Image], ...] = ()
    path: Path | None = None
    clip: tuple[Image.Image, ...] = ()
    fps: float = FPS
    scheduler: str | None = None

    @property
    def whole(self) -> Image.Image:
        """All of it in one picture, the frames of a video one below the other."""
        return in_one(self.clip or (self.image,))

    def tokens_of(self, frame: int) -> int:
        """Which frame of tokens a frame of the clip belongs to; 0 for a picture."""
        return latent_frame(frame, len(self.clip), self.trace.grid[0]) if self.clip else 0

    @property
    def shown(self) -> tuple[int, ...]:
        """Frames of tokens that the pictures in `frames` are of."""
        return tuple(map(self.tokens_of, shown(len(self.clip)))) if self.clip else (0,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibit:
    """A picture, and the large model's from the same noise if that was drawn too.

    Attributes:
        prompt, seed: what it was drawn from.
        take: the policy's picture.
        large: the large model's.
    """

    prompt: str
    seed: int
    take: Take
    large: Take | None = None

    @property
    def beside(self) -> str:
        """What it is beside: the large model, with its number of steps where that is another."""
        other = self.large is not None and self.large.trace.steps != self.take.trace.steps
        return f"large model ({self.large.trace.steps} steps)" if self.large is not None and other else "large model"

    @property
    def speedup(self) -> float | None:
        """Seconds of the large model over seconds of the policy."""
        return None if self.large is None else self.large.seconds / self.take.seconds

    @property
    def psnr(self) -> float | None:
        """Between the two pictures, in dB."""
        if self.large is None:
            return None
        ours, theirs = (np.asarray(take.whole.convert("RGB")) for take in (self.take, self.large))
        return psnr(ours, theirs)


def decibels(value: float | None) -> str:
    """A PSNR in words."""
    if value is None:
        return "-"
    return "identical" if value == inf else f"{value:.1f} dB"


def thresholds_of(policy: Policy) -> tuple[float, ...]:
    """τ_0 … τ_n of an adaptive policy, or nothing."""
    if isinstance(policy, HybridStitch):
        return policy.thresholds
    return (policy.threshold,) if isinstance(policy, SRDiffusion) and policy.criterion == "level" else ()
