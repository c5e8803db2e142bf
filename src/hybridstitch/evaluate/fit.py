"""Does the picture show what was asked for? The cosine of picture and prompt in a CLIP's space, in [−1, 1].

A hundred times this is the CLIP score that papers print (theirs is cut at 0, which no sensible picture reaches).
"""

from dataclasses import dataclass
from typing import ClassVar

from torch.nn import functional as F

from .pictures import Picture, References
from .scores import Scores, Wants, check, mean_score
from .towers import TextTower


@dataclass(frozen=True, slots=True)
class Fit:
    """Mean cosine of pictures and their prompts.

    Attributes:
        name: as printed.
        tower: features of both.
    """

    name: str
    tower: TextTower
    wants: ClassVar[Wants] = "prompts"

    def __call__(self, images: list[Picture], prompts: list[str], references: References | None = None) -> Scores:
        """See `scores.Metric`."""
        check(images, prompts, references, self.wants, self.name)
        cosines = F.cosine_similarity(self.tower.features(images), self.tower.text_features(prompts))
        return mean_score(
            cosines.cpu().numpy(),
            metric=self.name,
            better="higher",
            references="",
            numerics=f"{self.tower.numerics}; cosine",
        )
