"""When a picture drawn before serves a new prompt: how near they must be, and from which noise level on to draw.

A *band* begins at a similarity, the cosine of the prompt and the picture in a CLIP's space. A prompt in it starts from
the picture noised to the band's level, so at the last step of its run that is not below this level.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Similarities from one number on, measured.

    Attributes:
        similarity: the least of it.
        step: k, the step of the recipe's T that drawing begins with.
        level: σ there, before any shift by the picture's size.
        kept: CLIP score of the pictures so drawn over that of the large model's, both means.
        pairs: prompts and pictures that it rests on.
    """

    similarity: float
    step: int
    level: float
    kept: float
    pairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """What pictures drawn before are good for.

    Attributes:
        clip: whose similarities these are: "mini", or a CLIP of transformers.
        policy: who drew on from the pictures, as text.
        bands: by rising similarity; steps rise, levels fall.
    """

    clip: str
    policy: str
    bands: tuple[Band, ...]

    @property
    def least(self) -> float:
        """The similarity below which no picture serves; infinite where none serves at all."""
        return min((band.similarity for band in self.bands), default=float("inf"))

    def start(self, similarity: float, levels: Sequence[float]) -> int:
        """The step to begin with; 0 for noise.

        Args:
            similarity: of the prompt and the picture.
            levels: σ of every step of the run, falling.
        """
        fit = [band for band in self.bands if similarity >= band.similarity]
        if not fit:
            return 0
        level = fit[-1].level
        return max((step for step, sigma in enumerate(levels) if sigma >= level * (1 - 1e-6)), default=0)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back."""
        return {"clip": self.clip, "policy": self.policy, "bands": [asdict(band) for band in self.bands]}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: a number that cannot be, or bands that do not rise.
            KeyError, TypeError: something is missing.
        """
        bands = tuple(Band(**row) for row in data["bands"])
        numbers = [(band.similarity, band.step, -band.level) for band in bands]
        if not all(isfinite(n) for row in numbers for n in row) or not all(0 < band.level <= 1 for band in bands):
            raise ValueError("a band has a number that cannot be")
        if any(sorted(column) != list(column) for column in zip(*numbers, strict=True)):
            raise ValueError("bands do not rise with the similarity")
        return cls(clip=str(data["clip"]), policy=str(data["policy"]), bands=bands)
