"""Steps left out: the large model alone, its last prediction repeated in between."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from math import floor

from ..errors import PolicyError
from .plan import Plan, large
from .policy import Policy
from .seen import Seen


@dataclass(frozen=True, slots=True)
class Skip(Policy):
    """The large model on some of the steps; the others repeat its last prediction, so that Euler's step spans them.

    In effect fewer steps, at noise levels of the long run: more of them where the noise is high, and none spent on the
    long run's last, tiny changes.

    Attributes:
        large_steps: n, how many steps are drawn; all of them if there are no more.
        early: which ones: step `floor(T·(i/n)^early + 0.5)` for i = 0 … n-1. 1 spreads them evenly, a larger value
            draws more of the early steps. Where two fall on one step, the earliest step not drawn yet is added.
    """

    name = "skip"
    large_steps: int = 15
    early: float = 1.25

    def __post_init__(self) -> None:
        """Refuse what draws nothing, or leaves the noise out."""
        if self.large_steps < 1:
            raise PolicyError(f"large_steps={self.large_steps} was given; something has to be drawn: at least 1")
        if not 1.0 <= self.early <= 4.0:
            raise PolicyError(f"early={self.early} was given; 1 spreads the drawn steps evenly, 4 is the most")

    def decide(self, seen: Seen) -> Plan:
        return Plan((large(),)) if seen.step in drawn_steps(self, seen.steps) else Plan(())


@lru_cache(maxsize=256)  # strangers choose the numbers
def drawn_steps(policy: Skip, steps: int) -> frozenset[int]:
    """The steps of T that `Skip` draws.

    Args:
        policy: how many, and how early.
        steps: T.
    """
    count = min(policy.large_steps, steps)
    drawn = {floor(steps * (i / count) ** policy.early + 0.5) for i in range(count)}
    rest = (step for step in range(steps) if step not in drawn)
    return frozenset([*drawn, *islice(rest, count - len(drawn))])
