"""Who draws what, decided before each step from what was seen so far. Policies are values: frozen, without torch.

A policy answers one question, `decide(seen) -> Plan`, for one image. Every method of the paper's tables is one of
the classes below or a `Schedule` program:

    HybridStitch(masks=(0.3,), thresholds=(0.5, 0.3))    Algorithm 1 with any number of masks
    Schedule("L10 H15@0.3 S25")                          a fixed program: 10 steps large, 15 hybrid, 25 small

As text a policy is its name and the fields that differ from their defaults
(`hybrid-stitch:masks=0.3,thresholds=0.5/0.3`); `parse` and `str` are inverses.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import ClassVar, Literal

from . import options
from .errors import PolicyError, nearest
from .plan import Branches, Plan, Region, Stroke, Text, large, small
from .program import SEGMENT, check_start, segment_at, segments
from .trace import Seen

Signal = Literal["denoised", "latent"]
Reduction = Literal["token", "norm", "elementwise"]


@dataclass(frozen=True, slots=True)
class Policy(ABC):
    """What every policy has: a name, one question, and what must be measured for it.

    Attributes:
        name: as written in policy strings.
        adaptive: whether `decide` looks at the distances, so that they must be read on the host each step.
        can_mask: whether the large model may be asked for part of a picture, so that its keys and values are kept.
        measured: which output is compared from step to step ("denoised", Eq. 10, or "latent"), and how its change
            becomes one distance (Eq. 9: "token", "norm" or "elementwise").
    """

    name: ClassVar[str]
    adaptive: ClassVar[bool] = False

    @property
    def can_mask(self) -> bool:
        """See the class."""
        return False

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
class SRDiffusion(Policy):
    """The large model until D falls below one threshold, then the small one (SRDiffusion, arXiv 2505.19151).

    Attributes:
        threshold: D below which the small model takes over.
        min_large: least share of the steps the large model draws (and never fewer than 2 steps).
        signal, reduction: what is measured, see `Policy.measured`.
    """

    name = "sr-diffusion"
    adaptive = True
    threshold: float = 0.005
    min_large: float = 0.1
    signal: Signal = "denoised"
    reduction: Reduction = "norm"

    def __post_init__(self) -> None:
        """Refuse thresholds that cannot be meant."""
        options.check_thresholds((self.threshold,), 1)
        options.check_adaptive(self.min_large, 1)
        options.check_choices(self)

    @property
    def measured(self) -> tuple[Signal, Reduction]:
        return self.signal, self.reduction

    def decide(self, seen: Seen) -> Plan:
        stage = next_stage(seen, (self.threshold,), self.min_large)
        return Plan((small(),), 1) if stage else Plan((large(),), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedPolicy(Policy):
    """What policies with masks share.

    Attributes:
        update_mask: choose the mask again at every step; False (StaticMask) freezes it at each stage's entry.
        masked_compute: run the large model on the masked tokens only; False (FullLarge) runs it on all tokens and
            keeps the masked part.
        text: "fresh" or "cached" text tokens in masked steps.
        branches: guidance branches the large model draws in masked steps, "both" or "cond".
        signal, reduction: what is measured, see `Policy.measured`.
    """

    update_mask: bool = True
    masked_compute: bool = True
    text: Text = "fresh"
    branches: Branches = "both"
    signal: Signal = "denoised"
    reduction: Reduction = "token"

    @property
    def can_mask(self) -> bool:
        return True

    @property
    def measured(self) -> tuple[Signal, Reduction]:
        return self.signal, self.reduction

    def masked(self, ratio: float) -> Stroke:
        """The large model on the busiest `ratio` of the tokens, with these options."""
        region = Region(ratio, frozen=not self.update_mask)
        return Stroke("L", region, self.text, self.branches, dense=not self.masked_compute)


@dataclass(frozen=True, slots=True, kw_only=True)
class HybridStitch(MaskedPolicy):
    """Algorithm 1: large everywhere; then small everywhere with the large model on the top M_k; then small.

    Attributes:
        masks: M_1 > … > M_n, shares of the tokens in (0, 1].
        thresholds: τ_0 ≥ … ≥ τ_n; stage k ends when D falls below τ_k.
        min_large: least share of the steps drawn by the large model alone (and never fewer than 2 steps).
        patience: how many steps running D must be below the threshold.
    """

    name = "hybrid-stitch"
    adaptive = True
    masks: tuple[float, ...] = (0.3,)
    thresholds: tuple[float, ...] = (0.5, 0.3)
    min_large: float = 0.1
    patience: int = 1

    def __post_init__(self) -> None:
        """Refuse masks and thresholds that cannot be meant."""
        options.check_masks(self.masks)
        options.check_thresholds(self.thresholds, len(self.masks) + 1)
        options.check_adaptive(self.min_large, self.patience)
        options.check_choices(self)

    def decide(self, seen: Seen) -> Plan:
        stage = next_stage(seen, self.thresholds, self.min_large, self.patience)
        if stage == 0:
            return Plan((large(),), 0)
        if stage > len(self.masks):
            return Plan((small(),), stage)
        return Plan((small(), self.masked(self.masks[stage - 1])), stage)


@dataclass(frozen=True, slots=True)
class Schedule(MaskedPolicy):
    """A fixed program of segments, `"L10 H15@0.3 S25"` or in shares `"L20% H30%@0.3 S*"`.

    L large, S small, H@M small with the large model on the busiest M, R@M the large model on the busiest M over the
    previous prediction, - repeats the previous prediction. A count may be missing (one step); `*` takes the rest.

    Attributes:
        program: the segments, separated by blanks.
    """

    name = "schedule"
    program: str

    def __post_init__(self) -> None:
        """Refuse a program that does not parse."""
        segments(self.program)
        options.check_choices(self)

    @property
    def can_mask(self) -> bool:
        return any(segment.ratio is not None for segment in segments(self.program))

    def check(self, steps: int) -> None:
        check_start(self.program, steps, unmasked=1 if self.signal == "latent" else 2)

    def decide(self, seen: Seen) -> Plan:
        stage, segment = segment_at(self.program, seen.step, seen.steps)
        base = {"L": (large(),), "S": (small(),), "H": (small(),), "R": (), "-": ()}[segment.letter]
        return Plan(base if segment.ratio is None else (*base, self.masked(segment.ratio)), stage)


@dataclass(frozen=True, slots=True)
class Replay(Policy):
    """Recorded plans, drawn again: `Replay(trace.plans(masks=True))`.

    Attributes:
        plans: per image the plans of all steps.
    """

    name = "replay"
    plans: tuple[tuple[Plan, ...], ...]

    @property
    def can_mask(self) -> bool:
        return any(not s.region.everywhere for plans in self.plans for plan in plans for s in plan.strokes)

    def check(self, steps: int) -> None:
        for image, plans in enumerate(self.plans):
            if len(plans) != steps:
                raise PolicyError(
                    f"the trace has {len(plans)} steps for image {image}, this run has {steps}; "
                    "replay with the recorded number of steps"
                )

    def decide(self, seen: Seen) -> Plan:
        if seen.image >= len(self.plans):
            raise PolicyError(
                f"the trace has {len(self.plans)} image(s), this run has image {seen.image}; "
                "replay with the recorded batch"
            )
        return self.plans[seen.image][seen.step]

    def __str__(self) -> str:
        return f"replay of {len(self.plans)} image(s)"


POLICIES: dict[str, type[Policy]] = {
    policy.name: policy for policy in (LargeOnly, SmallOnly, TStitch, SRDiffusion, HybridStitch, Schedule)
}


def parse(text: str) -> Policy:
    """Read a policy string; the inverse of `str(policy)`. A bare program (`"L10 S40"`) is a `Schedule`.

    Args:
        text: `name`, or `name:field=value,field=value`; several numbers are separated by `/`.

    Raises:
        PolicyError: an unknown name or option (with the nearest known one), or a value that cannot be meant.
    """
    name, _, changed = text.strip().partition(":")
    if name not in POLICIES:
        if SEGMENT.fullmatch(name.split()[0] if name.split() else "") and not changed:
            return Schedule(name)
        raise PolicyError(f"there is no policy {name!r}; {nearest(name, POLICIES)}")
    return POLICIES[name](**options.read_changed(name, POLICIES[name], changed))


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
