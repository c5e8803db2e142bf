"""Step reuse: repeat a prediction while little changes, around any policy.

    Reuse(HybridStitch(masks=(0.3,), thresholds=(0.5, 0.3)), bound=0.05)

D after a drawn step, divided by the steps since the one drawn before it, is the change a step (Eq. 9). The next step
repeats the last prediction if the change passed over so far, this step's included, would stay below the bound. Reused
are steps that one model would draw whole; never the first ones, never the first of a stage, and never across a switch.
"""

from dataclasses import dataclass, replace

from ..errors import PolicyError
from . import options
from .plan import Plan
from .policy import Policy, Reduction, Signal
from .seen import Seen


@dataclass(frozen=True, slots=True)
class Reuse(Policy):
    """Another policy, whose whole-model steps are repeated while their change stays below a bound.

    Attributes:
        of: the policy that decides otherwise. For reused steps it sees the change per step, not their D of 0.
        bound: the largest change that repeated steps may leave out, in units of D.
        most: largest number of repeated steps in a row.
        first: number of steps that are drawn before any is repeated.
    """

    name = "reuse"
    adaptive = True
    of: Policy
    bound: float = 0.05
    most: int = 4
    first: int = 4

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        options.check_thresholds((self.bound,), 1)
        if isinstance(self.of, Reuse):
            raise PolicyError(f"reuse of reuse was asked for; give one bound around {self.of.of}")
        if self.measured[0] != "denoised":
            raise PolicyError(f"{self.of} measures the latent, which moves in repeated steps too; use signal=denoised")
        if self.most < 1 or self.first < 2:
            raise PolicyError(
                f"most={self.most}, first={self.first} was given; reuse takes at least 1 step in a row, and 2 drawn "
                "steps to know a change"
            )

    @property
    def can_mask(self) -> bool:
        return self.of.can_mask

    @property
    def measured(self) -> tuple[Signal, Reduction]:
        return self.of.measured

    def check(self, steps: int) -> None:
        options.check_steps(self.name, steps)
        self.of.check(steps)

    def decide(self, seen: Seen) -> Plan:
        changes = changes_a_step(seen)
        plan = self.of.decide(replace(seen, distances=changes))
        whole = len(plan.strokes) == 1 and plan.strokes[0].region.everywhere
        if not whole or seen.step < self.first or plan.stage != seen.stage:
            return plan
        stage = [past for past in seen.plans if past.stage == plan.stage]
        reused = _reused(stage)
        if len(stage) - reused < 2 or reused == self.most:
            return plan
        change = changes[-1]
        if change is None or (reused + 1) * change >= self.bound:
            return plan
        return Plan((), plan.stage)

    def __str__(self) -> str:
        return options.write_changed(self.name, self, last="of")


def changes_a_step(seen: Seen) -> tuple[float | None, ...]:
    """D of each step so far as a change a step: shared among the reused steps that led to it, and held in them."""
    changes: list[float | None] = []
    since = 1
    for plan, distance in zip(seen.plans, seen.distances, strict=True):
        if not plan.strokes and changes:
            changes.append(changes[-1])
            since += 1
        else:
            changes.append(None if distance is None else distance / since)
            since = 1
    return tuple(changes)


def _reused(plans: list[Plan]) -> int:
    """How many plans at the end draw nothing."""
    count = 0
    while count < len(plans) and not plans[-1 - count].strokes:
        count += 1
    return count
