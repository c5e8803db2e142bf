"""The run under way in a pipeline, or the last one: which calls and steps belong to it, and what it leaves."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..drawing.decide import ByPolicy
from ..drawing.run import Run
from ..drawing.stepped import Stepped
from ..errors import StitchError
from ..families.family import Facts, Family
from ..policies.policy import MaskedPolicy, Policy
from ..policies.trace import Trace
from .observer import check_scheduler


@dataclass(slots=True)
class CurrentRun:
    """A run and the grid of timesteps it belongs to.

    Attributes:
        run: its state.
        decider: its policy at work.
        grid: the scheduler's timesteps, whose identity tells one run from the next.
        over: whether it ended or was broken off.
    """

    run: Run
    decider: ByPolicy
    grid: Tensor
    over: bool = False
    _trace: Trace | None = None

    def goes_on(self, grid: Tensor) -> bool:
        """Whether a call under this grid is one of its own."""
        return not self.over and grid is self.grid

    def observe(self, step: Stepped, grid: Tensor) -> bool:
        """The scheduler made a step; steps of other runs are not ours to count.

        Returns:
            whether it was the last one.
        """
        if self.over or not self.run.pending:
            return False
        if grid is not self.grid:  # another pair's run, after ours was broken off
            self.break_off()
            return False
        try:
            self.run.observe(step)
        except BaseException:
            self.break_off()
            raise
        self.over = len(self.run.drawn) == self.run.steps
        return self.over

    def end(self) -> bool:
        """The pipeline's call is over, at the last step or before.

        Returns:
            whether the run was still going.
        """
        going, self.over = not self.over, True
        if going:
            self.run.finish()
        return going

    def break_off(self) -> None:
        """After an error: the next call begins a run, and this one holds no memory until then."""
        self.over = True
        self.run.let_go()

    @property
    def trace(self) -> Trace:
        """What was decided and measured so far; built once when it is over."""
        policy = self.decider.policy
        if not self.over:
            return self.run.trace(str(policy))
        if self._trace is None:
            self._trace = self.run.trace(str(policy)).noted(policy)
        return self._trace

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copied pair has drawn nothing yet."""
        return None


def check_policy(policy: Policy, family: Family, scheduler: Any, *, experts: bool = False) -> None:
    """Refuse a policy that a pair or its pipeline's scheduler cannot serve.

    Args:
        policy: who draws what.
        family: of the large model.
        scheduler: the pipeline's, or None where there is none yet.
        experts: whether the pipeline has a second large model.

    Raises:
        StitchError: masks on a family that draws whole steps only, or on two experts, whose keys are not each other's;
            the conditional branch alone, where it is not the last of a call.
        SchedulerError: see `observer.check_scheduler`.
    """
    check_masks(policy, family.facts, experts=experts)
    if isinstance(policy, MaskedPolicy) and policy.branches == "cond" and family.facts.conditional_first:
        raise StitchError(
            f"branches=cond is not supported for {family.facts.name}, whose pipelines put the conditional branch "
            "before the other; use branches=both"
        )
    if scheduler is not None:
        check_scheduler(scheduler, policy)


def check_masks(policy: Policy, facts: Facts, *, experts: bool = False) -> None:
    """Refuse masks where steps are drawn whole.

    Args:
        policy: who draws what.
        facts: of the large model's class.
        experts: whether the pipeline has a second large model.

    Raises:
        StitchError: see above.
    """
    if policy.can_mask and not facts.masks:
        raise StitchError(
            f"{policy.name} uses masks, and with {facts.name} each step is drawn by one model; use a program of L, "
            "S and -, t-stitch, sr-diffusion or skip"
        )
    if policy.can_mask and experts:
        raise StitchError(
            f"{policy.name} uses masks, and this pipeline has two large models, which cannot share keys and values; "
            "use a program of L, S and -, t-stitch, sr-diffusion or skip"
        )
