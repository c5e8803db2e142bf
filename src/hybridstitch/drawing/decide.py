"""A policy at work on a run: what was measured so far goes in, a plan for each image comes out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ..policies.plan import Plan
from ..policies.policy import Policy
from ..policies.seen import Seen

if TYPE_CHECKING:
    from .run import Run


class Decider(Protocol):
    """Whoever says what a run draws next."""

    def plans(self, run: "Run") -> Sequence[Plan]:
        """The plans of the step about to be drawn, one per image."""
        ...

    def large_is_over(self, run: "Run") -> bool:
        """Whether no plan to come asks for the large model, as far as the present stages tell."""
        ...


class ByPolicy:
    """A policy decides for each image."""

    def __init__(self, policy: Policy) -> None:
        """Let a policy decide.

        Args:
            policy: it.
        """
        self.policy = policy

    def plans(self, run: "Run") -> Sequence[Plan]:
        """See `Decider`; distances are read on the host only where the policy looks at them."""
        distances = run.distances() if self.policy.adaptive else [()] * run.images
        return [self.policy.decide(seen(run, image, distances[image])) for image in range(run.images)]

    def large_is_over(self, run: "Run") -> bool:
        """See `Decider`."""
        return not any(
            stroke.model == "L"
            for image, now in enumerate(run.drawn[-1].plans)
            for step in range(len(run.drawn), run.steps)
            for stroke in self.policy.decide(
                Seen(step=step, steps=run.steps, stage=now.stage, distances=(), image=image)
            ).strokes
        )


def seen(run: "Run", image: int, distances: tuple[float | None, ...], stage: int | None = None) -> Seen:
    """What a policy may look at as a step begins.

    Args:
        run: so far.
        image: which.
        distances: its D so far.
        stage: of the step before; default: the run's.
    """
    plans = tuple(done.plans[image] for done in run.drawn)
    before = plans[-1].stage if plans else 0
    return Seen(
        step=len(run.drawn),
        steps=run.steps,
        stage=before if stage is None else stage,
        distances=distances,
        image=image,
        plans=plans,
    )
