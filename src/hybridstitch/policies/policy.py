"""What a policy is: a frozen value that answers one question, `decide(seen) -> Plan`, for one image.

Below it what several policies share: the options of those with masks, and the rule by which stages rise.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import ClassVar, Literal

from . import options
from .plan import Branches, Plan, Region, Stroke, Text
from .seen import Seen

Signal = Literal["denoised", "latent", "prediction"]
Reduction = Literal["token", "norm", "elementwise"]


@dataclass(frozen=True, slots=True)
class Policy(ABC):
    """What every policy has: a name, a method `decide`, and what must be measured for it.

    Attributes:
        name: as written in policy strings.
        adaptive: whether `decide` uses the distances, so that they must be read on the host each step.
        can_mask: whether the large model may have to draw part of a picture, so that its keys and values are kept.
        images: number of images for which it has different plans in the first step; 1: all images begin alike.
        measured: which output is compared from step to step ("denoised", Eq. 10, "latent", or the guided
            "prediction" itself), and how its change becomes one distance (Eq. 9: "token", "norm" or "elementwise").
    """

    name: ClassVar[str]
    adaptive: ClassVar[bool] = False

    @property
    def can_mask(self) -> bool:
        """See the class."""
        return False

    @property
    def images(self) -> int:
        """See the class."""
        return 1

    @property
    def measured(self) -> tuple[Signal, Reduction]:
        """See the class."""
        return "denoised", "token"

    @abstractmethod
    def decide(self, seen: Seen) -> Plan:
        """The plan of the step about to be drawn, for one image.

        Args:
            seen: step, T, the stage so far and the distances so far.
        """

    def check(self, steps: int) -> None:
        """Refuse a number of steps that the policy cannot fill. Called before anything is drawn.

        Raises:
            PolicyError: `steps` does not fit; by default, fewer than 3 for an adaptive policy.
        """
        if self.adaptive:
            options.check_steps(self.name, steps)

    def __str__(self) -> str:
        return options.write_changed(self.name, self)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedPolicy(Policy):
    """What policies with masks share.

    Attributes:
        update_mask: choose the mask again at every step; False (StaticMask) freezes it at each stage's entry.
        masked_compute: run the large model on the masked tokens only; False (FullLarge) runs it on all tokens and
            keeps the masked part.
        text: "fresh" or "cached" text tokens in masked steps.
        branches: guidance branches the large model draws in masked steps, "both" or "cond".
        carry: where the small model draws, share of the last prediction's difference from it that stays; 0: none.
        follow: there, share of the change in its own prediction that is followed; 1: all of it (see `carry`).
        signal, reduction: what is measured, see `Policy.measured`.
    """

    update_mask: bool = True
    masked_compute: bool = True
    text: Text = "fresh"
    branches: Branches = "both"
    carry: float = 0.0
    follow: float = 1.0
    signal: Signal = "denoised"
    reduction: Reduction = "token"

    @property
    def can_mask(self) -> bool:
        return True

    @property
    def measured(self) -> tuple[Signal, Reduction]:
        return self.signal, self.reduction

    def small(self) -> Stroke:
        """The small model everywhere, with these options."""
        return Stroke("S", carry=self.carry, follow=self.follow)

    def masked(self, ratio: float) -> Stroke:
        """The large model on the share `ratio` of the tokens, those that changed most, with these options."""
        region = Region(ratio, frozen=not self.update_mask)
        return Stroke("L", region, self.text, self.branches, dense=not self.masked_compute)


def next_stage(seen: Seen, thresholds: Sequence[float], min_large: float, patience: int = 1) -> int:
    """The stage of the step about to be drawn: at most one more than the last, never less (SPEC §3).

    Args:
        seen: what was measured so far.
        thresholds: τ_0 … τ_n; the stage rises when the last `patience` distances are all below τ_stage.
        min_large: stage 0 lasts at least `max(2, ceil(min_large·T))` steps.
        patience: see above.
    """
    if seen.stage == len(thresholds):
        return seen.stage
    if seen.stage == 0 and seen.step < least_large(seen.steps, min_large):
        return 0
    recent = seen.distances[-patience:]
    below = [d is not None and d < thresholds[seen.stage] for d in recent]
    return seen.stage + (len(below) == patience and all(below))


def least_large(steps: int, min_large: float) -> int:
    """Steps that stage 0 lasts at least: `max(2, ceil(min_large·T))`."""
    return max(2, ceil(min_large * steps))
