"""What was recorded, drawn again."""

from dataclasses import dataclass

from ..errors import PolicyError
from .plan import Plan
from .policy import Policy
from .seen import Seen


@dataclass(frozen=True, slots=True)
class Replay(Policy):
    """Recorded plans, drawn again: `Replay(trace.plans(masks=True))`.

    Attributes:
        plans: per image the plans of all steps.
    """

    name = "replay"
    plans: tuple[tuple[Plan, ...], ...]

    @property
    def images(self) -> int:
        return len(self.plans)

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
