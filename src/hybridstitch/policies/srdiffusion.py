"""SRDiffusion: the large model lays a picture out, the small one finishes it, and the change of a step says when."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import tanh
from typing import Literal

from . import options
from .plan import Plan, large, small
from .policy import Policy, Reduction, Signal, least_large, next_stage
from .seen import Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class SRDiffusion(Policy):
    """The large model until steps change little, then the small one (SRDiffusion, arXiv 2505.19151).

    `criterion="level"` is that of the HybridStitch paper (Eq. 9): D < threshold. `criterion="drop"` switches once D
    hardly falls any more, 0 < tanh D_{i−1} − tanh D_i < threshold, as a public port of SRDiffusion does
    (`criterion=drop,signal=prediction,threshold=0.01`; docs/pairs.md names the source).

    Attributes:
        threshold: the small model takes over below this value.
        criterion: what is compared with it, see above.
        min_large: least share of the steps the large model draws (and never fewer than 2 steps).
        signal, reduction: what is measured, see `Policy.measured`.
    """

    name = "sr-diffusion"
    adaptive = True
    threshold: float = 0.005
    criterion: Literal["level", "drop"] = "level"
    min_large: float = 0.1
    signal: Signal = "denoised"
    reduction: Reduction = "norm"

    def __post_init__(self) -> None:
        """Refuse thresholds that make no sense."""
        options.check_thresholds((self.threshold,), 1)
        options.check_adaptive(self.min_large, 1)
        options.check_choices(self)

    @property
    def measured(self) -> tuple[Signal, Reduction]:
        return self.signal, self.reduction

    def decide(self, seen: Seen) -> Plan:
        if self.criterion == "level":
            stage = next_stage(seen, (self.threshold,), self.min_large)
        else:
            ready = seen.step >= least_large(seen.steps, self.min_large)
            stage = seen.stage or int(ready and 0 < _drop(seen.distances) < self.threshold)
        return Plan((small(),), 1) if stage else Plan((large(),), 0)


def _drop(distances: Sequence[float | None]) -> float:
    """How far the last step's D fell, on the scale of tanh; 0 before there are two."""
    before, last = distances[-2:] if len(distances) > 1 else (None, None)
    return 0.0 if before is None or last is None else tanh(before) - tanh(last)
