"""One policy at one step count, with what was measured of it, and the programs that lie between two of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..intervals import Interval
from ..policies import LargeOnly, Policy, Schedule, SmallOnly, parse
from ..program import fill, segments


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One policy at one step count, measured.

    Attributes:
        policy: as text.
        steps: T′ of its runs.
        kind: "large", "fewer steps", "small", "whole steps" (both models, never in one step) or "region mask".
        predicted: speed by the prices.
        measured: speed of real calls; None where there were none.
        closeness: SSIM to the large picture over the calibration prompts.
        psnr: the same in dB.
        held_out: mean closeness over prompts the search never saw; None where they were not drawn.
        memory_mib: weights of the models it needs, and keys and values.
        distances: per step the smallest and largest D (Eq. 9) over the calibration prompts.
    """

    policy: str
    steps: int
    kind: str
    predicted: float
    measured: float | None = None
    closeness: Interval
    psnr: Interval
    held_out: float | None = None
    memory_mib: float = 0.0
    distances: tuple[tuple[float, float] | None, ...] = ()

    @property
    def speed(self) -> float:
        """Measured where it was, else predicted."""
        return self.predicted if self.measured is None else self.measured

    @property
    def name(self) -> str:
        """What a user reads: policy and step count."""
        return f"{self.policy.removeprefix('schedule:program=')} in {self.steps} steps"


def kind_of(policy: Policy, steps: int, reference: int) -> str:
    """What `Point.kind` says of a policy.

    Args:
        policy: the policy.
        steps: T′ of its runs.
        reference: T of the large model's run it is compared with.
    """
    if isinstance(policy, LargeOnly):
        return "large" if steps == reference else "fewer steps"
    if isinstance(policy, SmallOnly):
        return "small"
    return "region mask" if policy.can_mask else "whole steps"


def program_of(point: Point) -> tuple[Schedule, tuple[int, ...]] | None:
    """A point's make (its program with every count 1) and its counts; None where it is no program."""
    policy = parse(point.policy)
    if isinstance(policy, LargeOnly):
        return Schedule("L1"), (point.steps,)
    if isinstance(policy, SmallOnly):
        return Schedule("S1"), (point.steps,)
    if not isinstance(policy, Schedule):
        return None
    counts = fill(policy.program, point.steps)
    return replace(policy, program=_words(policy.program, [1] * len(counts))), counts


def with_counts(make: Schedule, counts: Sequence[int]) -> Policy:
    """A program with other counts; whole runs of one model as what they are."""
    program = _words(make.program, counts)
    if " " not in program and program[0] in "LS":
        return LargeOnly() if program[0] == "L" else SmallOnly()
    return replace(make, program=program)


def _words(program: str, counts: Sequence[int]) -> str:
    return " ".join(
        f"{s.letter}{count}" + ("" if s.ratio is None else f"@{s.ratio:g}")
        for s, count in zip(segments(program), counts, strict=True)
    )
