"""What a picture costs, from prompt to pixels, on the machine the prices were measured on.

    seconds(policy, T) = call + T·step + Σ strokes

with `call` what every picture pays once (text encoders, VAE), `step` what every step pays beside the models (guidance,
scheduler, measuring), and a masked stroke of the large model `base + slope·M`, one line for each kind of it; without a
line `M·L_l`, as in Eq. 3.

*Speed* means one thing in this library: seconds of the large model alone at a reference number of steps, divided by
seconds of the policy, both from prompt to picture, one picture at a time, warm.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import linear_regression, mean
from typing import Any, Self

from ..errors import PolicyError
from ..policies.plan import Plan, Stroke
from ..policies.policy import Policy
from ..policies.seen import Seen

Line = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Measured seconds of one image.

    Attributes:
        call: of a picture, beside its steps.
        step: of a step, beside its strokes.
        large: of a dense stroke of the large model.
        small: of a stroke of the small model.
        masked: per kind of masked stroke ("fresh" or "cached" text, or "cond", the conditional branch only) the
            intercept and the slope over M.
    """

    call: float = 0.0
    step: float = 0.0
    large: float
    small: float
    masked: Mapping[str, Line] = field(default_factory=dict)

    @classmethod
    def fit(cls, strokes: Iterable[tuple[Stroke, float]], *, call: float = 0.0, step: float = 0.0) -> Self:
        """Means of whole strokes, and a line of least squares through the masked ones of each kind.

        Args:
            strokes: strokes with the seconds each took.
            call, step: see the class.

        Raises:
            ValueError: no dense large or no small stroke among them.
        """
        points: dict[str, list[tuple[float, float]]] = {"large": [], "small": []}
        for stroke, seconds in strokes:
            points.setdefault(_kind(stroke), []).append((stroke.region.ratio, seconds))
        large, small = ([seconds for _, seconds in points.pop(model)] for model in ("large", "small"))
        if not large or not small:
            raise ValueError(
                f"{len(large)} dense large and {len(small)} small steps were timed; at least one of each is needed"
            )
        masked = {kind: _line(found) for kind, found in points.items()}
        return cls(call=call, step=step, large=mean(large), small=mean(small), masked=masked)

    @property
    def small_ratio(self) -> float:
        """s, a small step in dense large steps."""
        return self.small / self.large

    def masked_ratio(self, ratio: float, kind: str = "fresh") -> float:
        """h(M), a masked step in dense large steps."""
        base, slope = self._line(kind)
        return (base + slope * ratio) / self.large

    def stroke(self, stroke: Stroke) -> float:
        """Seconds of one stroke."""
        kind = _kind(stroke)
        if kind == "small":
            return self.small
        if kind == "large":
            return self.large
        base, slope = self._line(kind)
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

    def _line(self, kind: str) -> Line:
        """Of a kind of masked stroke; one that was not measured costs what one with fresh text does."""
        return self.masked.get(kind) or self.masked.get("fresh") or (0.0, self.large)


def fixed_plans(policy: Policy, steps: int) -> list[Plan]:
    """The plans of a policy that decides by the step alone.

    Args:
        policy: the policy.
        steps: T.

    Raises:
        PolicyError: the policy is adaptive, or cannot fill the steps.
    """
    if policy.adaptive:
        raise PolicyError(f"{policy} decides while it draws; only a trace has its plans")
    policy.check(steps)
    plans: list[Plan] = []
    for step in range(steps):
        stage = plans[-1].stage if plans else 0
        plans.append(policy.decide(Seen(step=step, steps=steps, stage=stage, distances=())))
    return plans


def _kind(stroke: Stroke) -> str:
    if stroke.model == "S":
        return "small"
    if not stroke.masked:
        return "large"
    return "cond" if stroke.branches == "cond" else stroke.text


def _line(points: Sequence[tuple[float, float]]) -> Line:
    """Intercept and slope through (x, y), by least squares; through the origin if there is only one x."""
    x, y = zip(*points, strict=True)
    slope, base = linear_regression(x, y, proportional=len(set(x)) == 1)
    return base, slope
