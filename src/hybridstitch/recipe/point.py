"""One policy at one step count and some noise levels, measured."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

from ..measure.intervals import Interval
from ..policies.levels import check_levels
from ..policies.methods import LargeOnly, Schedule, SmallOnly
from ..policies.policy import Policy
from ..policies.program import segments
from ..policies.skip import Skip

FOLDED = 3  # times from which a block of a program is written once


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One policy at one step count and some noise levels, measured.

    Attributes:
        policy: as text.
        steps: T′ of its runs.
        shift, levels: of the noise, one for all or each step's σ (`policies.levels`); None leaves them to the pipeline.
        kind: "large", "fewer steps" (of the large model; a repeated prediction is a longer step), "small",
            "whole steps" (both models, never in one step) or "region mask".
        predicted: speed by the prices.
        measured: speed of real calls; None where there were none.
        closeness: SSIM to the large picture over the calibration prompts, and its 99 % interval.
        psnr: the same in dB.
        held_out: mean closeness over prompts the search never saw; None where they were not drawn.
        memory_mib: weights of the models it needs, and keys and values.
        distances: per step the smallest and largest D (Eq. 9) over the calibration prompts.
    """

    policy: str
    steps: int
    shift: float | None = None
    levels: tuple[float, ...] | None = None
    kind: str
    predicted: float
    measured: float | None = None
    closeness: Interval
    psnr: Interval
    held_out: float | None = None
    memory_mib: float = 0.0
    distances: tuple[tuple[float, float] | None, ...] = ()

    def __post_init__(self) -> None:
        """Refuse noise levels that no run can have."""
        check_levels(self.steps, self.shift, self.levels)

    @property
    def speed(self) -> float:
        """Measured where it was, else predicted."""
        return self.predicted if self.measured is None else self.measured

    @property
    def name(self) -> str:
        """What a user reads: policy, step count and noise levels."""
        return named(self.policy, self.steps, self.shift, self.levels)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; noise levels that are the pipeline's own are left out."""
        data = {**asdict(self), "closeness": list(self.closeness), "psnr": list(self.psnr)}
        return {name: value for name, value in data.items() if name not in ("shift", "levels") or value is not None}


def named(policy: str, steps: int, shift: float | None = None, levels: Sequence[float] | None = None) -> str:
    """A point as a user reads it: "L4 H2@0.15 S2 (text=cached) in 8 steps at shift 5", "S (L R@0.3)×5 L in 12 steps".

    Args:
        policy: as text.
        steps: T′.
        shift, levels: see `Point`.
    """
    at = "" if shift is None else f" at shift {shift:g}"
    at += "" if levels is None else f" at {' '.join(f'{level:.3g}' for level in levels)}"
    name, _, options = policy.partition(":")
    if name == Schedule.name:
        words = dict(option.split("=") for option in options.split(","))
        name = folded(words.pop("program").split())
        options = ", ".join(f"{key}={value}" for key, value in words.items())
    return name + (f" ({options})" if options else "") + f" in {steps} steps{at}"


def folded(words: Sequence[str]) -> str:
    """A program for a reader, a repeated block written once: "S (L R@0.3)×3 L" for "S L R@0.3 L R@0.3 L R@0.3 L"."""
    for begin in range(len(words)):
        for size in range(1, (len(words) - begin) // FOLDED + 1):
            block, times = words[begin : begin + size], 1
            while words[begin + times * size : begin + (times + 1) * size] == block:
                times += 1
            if times >= FOLDED:
                rest = folded(words[begin + times * size :])
                return " ".join([*words[:begin], f"({' '.join(block)})×{times}", *filter(None, [rest])])
    return " ".join(words)


def kind_of(policy: Policy, steps: int, reference: int) -> str:
    """What `Point.kind` says of a policy.

    Args:
        policy: the policy.
        steps: T′ of its runs.
        reference: T of the large model's run it is compared with.
    """
    if isinstance(policy, LargeOnly | Skip):
        return "large" if isinstance(policy, LargeOnly) and steps == reference else "fewer steps"
    if isinstance(policy, SmallOnly):
        return "small"
    if isinstance(policy, Schedule) and {segment.letter for segment in segments(policy.program)} <= {"L", "-"}:
        return "fewer steps"
    return "region mask" if policy.can_mask else "whole steps"


class Trial(NamedTuple):
    """What the search looked at: a policy at T′ and noise levels, its kind, speed and mean closeness over prompts."""

    policy: str
    steps: int
    kind: str
    speed: float
    closeness: float
    prompts: int
    shift: float | None = None
    levels: tuple[float, ...] | None = None

    @classmethod
    def from_json(cls, row: Sequence[Any]) -> Self:
        """Read a row of a recipe's file."""
        trial = cls(*row)
        return trial if trial.levels is None else trial._replace(levels=tuple(trial.levels))
