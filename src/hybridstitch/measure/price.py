"""What a whole call of a pipeline costs, from prompt to picture, on the machine the prices were measured on.

    seconds(policy, T) = call + T·step + Σ strokes

with `call` what every picture pays once (text encoders, VAE), `step` what every step pays beside the models (guidance,
scheduler, measuring), and a masked stroke of the large model `base + slope·M`, one line for each kind of it.

*Speed* means one thing in this library: seconds of the large model alone at a reference number of steps, divided by
seconds of the policy, both from prompt to picture, one picture at a time, warm.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from ..errors import PolicyError
from ..policies.plan import Plan, Stroke
from ..policies.policy import Policy
from ..policies.seen import Seen

KINDS = ("fresh", "cached", "cond")  # of masked strokes: text fresh or cached, and the conditional branch only
Line = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Measured seconds of one image.

    Attributes:
        call: of a picture, beside its steps.
        step: of a step, beside its strokes.
        large: of a dense stroke of the large model.
        small: of a stroke of the small model.
        masked: per kind of masked stroke (see `KINDS`) the intercept and the slope over M.
    """

    call: float
    step: float
    large: float
    small: float
    masked: Mapping[str, Line]

    @property
    def small_ratio(self) -> float:
        """s, a small step in dense large steps."""
        return self.small / self.large

    def masked_ratio(self, ratio: float, kind: str = "fresh") -> float:
        """h(M), a masked step in dense large steps."""
        base, slope = self.masked[kind]
        return (base + slope * ratio) / self.large

    def stroke(self, stroke: Stroke) -> float:
        """Seconds of one stroke."""
        if stroke.model == "S":
            return self.small
        if not stroke.masked:
            return self.large
        kind = "cond" if stroke.branches == "cond" else stroke.text
        base, slope = self.masked[kind if kind in self.masked else "fresh"]
        return base + slope * stroke.region.ratio

    def plans(self, plans: Iterable[Plan]) -> float:
        """Seconds of a picture drawn by these plans, one a step."""
        found = list(plans)
        return self.call + len(found) * self.step + sum(self.stroke(s) for plan in found for s in plan.strokes)

    def seconds(self, policy: Policy, steps: int) -> float:
        """Seconds of a picture.

        Args:
            policy: one that does not look at distances.
            steps: T.

        Raises:
            PolicyError: the policy is adaptive, so its price is known only once it was drawn (`plans` of its trace).
        """
        return self.plans(fixed_plans(policy, steps))

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back."""
        masked = {kind: list(line) for kind, line in self.masked.items()}
        return {"call": self.call, "step": self.step, "large": self.large, "small": self.small, "masked": masked}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        masked = {kind: (float(base), float(slope)) for kind, (base, slope) in data["masked"].items()}
        numbers = {name: float(data[name]) for name in ("call", "step", "large", "small")}
        return cls(**numbers, masked=masked)


def fixed_plans(policy: Policy, steps: int) -> list[Plan]:
    """The plans of a policy that decides by the step alone.

    Args:
        policy: the policy.
        steps: T.

    Raises:
        PolicyError: the policy is adaptive, or cannot fill the steps.
    """
    if policy.adaptive:
        raise PolicyError(f"{policy} decides as it draws; only its trace tells its plans")
    policy.check(steps)
    plans: list[Plan] = []
    for step in range(steps):
        stage = plans[-1].stage if plans else 0
        plans.append(policy.decide(Seen(step=step, steps=steps, stage=stage, distances=())))
    return plans
