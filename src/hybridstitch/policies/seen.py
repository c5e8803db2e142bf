"""What a policy may look at when a step begins."""

from dataclasses import dataclass
from typing import Protocol

from .plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a policy can base its decision on when a step begins, for one image.

    Attributes:
        step: the step about to be drawn, 0 … steps−1.
        steps: T.
        stage: the stage of the step before (0 at the start).
        distances: D of the steps drawn so far, oldest first; None where there is none (in the first step, or where
            a callback replaced all tokens).
        image: the image's index in the batch.
        plans: what was decided for the steps so far, oldest first.
    """

    step: int
    steps: int
    stage: int
    distances: tuple[float | None, ...]
    image: int = 0
    plans: tuple[Plan, ...] = ()


class Decides(Protocol):
    """Anything with a policy's one question."""

    def decide(self, seen: Seen) -> Plan:
        """The plan of the step about to be drawn."""
        ...
