"""Who draws what, decided before each step from what was seen so far. Policies are values: frozen, without torch.

A policy answers one question, `decide(seen) -> Plan`, for one image. Every method of the paper's tables is one of
the classes below, `srdiffusion.SRDiffusion`, or a `Schedule` program:

    HybridStitch(masks=(0.3,), thresholds=(0.5, 0.3))    Algorithm 1 with any number of masks
    Schedule("L10 H15@0.3 S25")                          a fixed program: 10 steps large, 15 hybrid, 25 small
"""

from dataclasses import dataclass
from math import floor

from ..errors import PolicyError
from . import options
from .plan import Plan, large, small
from .policy import MaskedPolicy, Policy, next_stage
from .program import check_start, segment_at, segments
from .seen import Seen


@dataclass(frozen=True, slots=True)
class LargeOnly(Policy):
    """The large model, every step: the plain pipeline, bit for bit."""

    name = "large"

    def decide(self, seen: Seen) -> Plan:
        return Plan((large(),))


@dataclass(frozen=True, slots=True)
class SmallOnly(Policy):
    """The small model, every step."""

    name = "small"

    def decide(self, seen: Seen) -> Plan:
        return Plan((small(),))


@dataclass(frozen=True, slots=True)
class TStitch(Policy):
    """The small model first, then the large one (T-Stitch, arXiv 2402.14167).

    Attributes:
        ratio: share of the steps the small model draws: the first `floor(ratio·T + 0.5)`.
    """

    name = "t-stitch"
    ratio: float = 0.4

    def __post_init__(self) -> None:
        """Refuse a share outside [0, 1]."""
        if not 0.0 <= self.ratio <= 1.0:
            raise PolicyError(f"ratio={self.ratio} was given; T-Stitch's ratio is a share of the steps, 0 to 1")

    def decide(self, seen: Seen) -> Plan:
        first = floor(self.ratio * seen.steps + 0.5)
        return Plan((small(),), 0) if seen.step < first else Plan((large(),), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class HybridStitch(MaskedPolicy):
    """Algorithm 1: the large model; then both, the large one on a share M_k of the tokens; then the small one.

    Attributes:
        masks: M_1 > … > M_n, shares of the tokens in (0, 1].
        thresholds: τ_0 ≥ … ≥ τ_n; stage k ends when D falls below τ_k.
        min_large: least share of the steps drawn by the large model alone (and never fewer than 2 steps).
        patience: for how many steps in a row D must be below the threshold.
    """

    name = "hybrid-stitch"
    adaptive = True
    masks: tuple[float, ...] = (0.3,)
    thresholds: tuple[float, ...] = (0.5, 0.3)
    min_large: float = 0.1
    patience: int = 1

    def __post_init__(self) -> None:
        """Refuse masks and thresholds that make no sense."""
        options.check_masks(self.masks)
        options.check_thresholds(self.thresholds, len(self.masks) + 1)
        options.check_adaptive(self.min_large, self.patience)
        options.check_carry(self.carry, self.follow)
        options.check_choices(self)

    def decide(self, seen: Seen) -> Plan:
        stage = next_stage(seen, self.thresholds, self.min_large, self.patience)
        if stage == 0:
            return Plan((large(),), 0)
        if stage > len(self.masks):
            return Plan((self.small(),), stage)
        return Plan((self.small(), self.masked(self.masks[stage - 1])), stage)


@dataclass(frozen=True, slots=True)
class Schedule(MaskedPolicy):
    """A fixed program of segments, `"L10 H15@0.3 S25"` or in shares `"L20% H30%@0.3 S*"`.

    L is the large model, S the small one. H@M is the small model everywhere, with the large one on the share M of the
    tokens that change most. R@M is the large model on these tokens, over the previous prediction. - repeats the
    previous prediction. A missing count means one step; `*` takes the rest.

    Attributes:
        program: the segments, separated by spaces.
    """

    name = "schedule"
    program: str

    def __post_init__(self) -> None:
        """Refuse a program that does not parse."""
        segments(self.program)
        options.check_carry(self.carry, self.follow)
        options.check_choices(self)

    @property
    def can_mask(self) -> bool:
        return any(segment.ratio is not None for segment in segments(self.program))

    def check(self, steps: int) -> None:
        check_start(self.program, steps, unmasked=1 if self.signal == "latent" else 2)

    def decide(self, seen: Seen) -> Plan:
        stage, segment = segment_at(self.program, seen.step, seen.steps)
        base = {"L": (large(),), "S": (self.small(),), "H": (self.small(),), "R": (), "-": ()}[segment.letter]
        return Plan(base if segment.ratio is None else (*base, self.masked(segment.ratio)), stage)
