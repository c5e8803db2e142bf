"""Many policies, one prompt, each distinct step drawn once: policies whose plans agree so far share a run, and where
they part the run is forked, keys and values included.

    start = prepare(pipe, "a big dog on a meadow", steps=50, guidance=4.0, seed=0)
    drawn = draw_together(pipe, start, {"large": LargeOnly(), "hybrid": HybridStitch(), "few": Schedule("L20 S30")})
    picture = decode(pipe, start, drawn["hybrid"].latent)

What comes out is what the pipeline itself draws, bit for bit: the same models are handed the same tensors, guidance
is the pipeline's, in one call or two, and its own scheduler makes the steps. One picture at a time, no skip-layer
guidance. A shared step counts with its full time in every trace that went through it.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..drawing.decide import seen
from ..drawing.run import Run
from ..drawing.stepped import Stepped
from ..pair.observer import check_scheduler, measurable, watch
from ..policies.plan import Plan
from ..policies.policy import Policy, Reduction, Signal
from ..policies.seen import Seen
from ..policies.trace import Trace
from .start import Start, seat_of


@dataclass(frozen=True, slots=True)
class Finished:
    """What a policy drew: the clean latent, of one image, how, and what it was drawn from."""

    latent: Tensor
    trace: Trace
    start: Start


@torch.no_grad()
def draw_together(pipe: Any, start: Start, policies: Mapping[str, Policy]) -> dict[str, Finished]:
    """Draw one picture by each policy, every distinct step once.

    Args:
        pipe: the stitched pipeline `start` is of; its own policy does not matter.
        start: see `prepare`.
        policies: by name.

    Returns:
        by name, in the order given.

    Raises:
        PolicyError: a policy cannot fill the steps.
        SchedulerError: the scheduler cannot serve a policy.
        RunError: an output is not finite.
    """
    stitched = seat_of(pipe)
    models = stitched.models
    kinds: dict[tuple[Signal, Reduction], list[str]] = {}
    for name, policy in policies.items():
        check_scheduler(start.scheduler, policy)
        policy.check(start.steps)
        kinds.setdefault(policy.measured, []).append(name)
    drawn: dict[str, Finished] = {}
    for names in kinds.values():
        members = {name: policies[name] for name in names}
        measured = members[names[0]].measured if measurable(start.scheduler) else None
        keep = any(policy.can_mask for policy in members.values())
        run = Run(models, start.steps, measured=measured, keep=keep)
        _Path(start, members, dict.fromkeys(names, 0), run, start.latent, start.scheduler).follow(drawn)
    return {name: drawn[name] for name in policies}


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Path:
    """Policies that agreed so far, and the run they share.

    Attributes:
        start: where all began.
        members: the policies.
        stages: of each, the stage of the last step.
        run: what was drawn.
        latent: x_i, of one image.
        scheduler: of this path only, once a step was made.
        plan: of the step being drawn.
    """

    start: Start
    members: dict[str, Policy]
    stages: dict[str, int]
    run: Run
    latent: Tensor
    scheduler: Any
    plan: Plan | None = None

    def follow(self, drawn: dict[str, Finished]) -> None:
        """Draw to the end, paths that part from this one included."""
        self.scheduler = copy.deepcopy(self.scheduler)
        watch(self.scheduler, self)
        for _ in range(len(self.run.drawn), self.start.steps):
            first, *others = self._decided().items()
            for _, names in others:
                self._part(names).follow(drawn)
            self.plan, names = first
            self.members = {name: self.members[name] for name in names}
            self.stages = dict.fromkeys(names, self.plan.stage)
            self._step()
        for name, policy in self.members.items():
            drawn[name] = Finished(self.latent, self.run.trace(str(policy)).noted(policy), self.start)

    def plans(self, run: Run) -> list[Plan]:
        """What all members decided, see `decide.Decider`."""
        assert self.plan is not None
        return [self.plan]

    def observe(self, step: Stepped) -> None:
        """The scheduler made a step."""
        self.run.observe(step)

    def forgets(self) -> tuple[int, ...]:
        """See `observer.Listener`."""
        return self.run.handed_over()

    def large_is_over(self, run: Run) -> bool:
        """Whether no member will ask for the large model, see `decide.Decider`."""
        return not any(
            stroke.model == "L"
            for name, policy in self.members.items()
            for step in range(len(run.drawn), run.steps)
            for stroke in policy.decide(Seen(step=step, steps=run.steps, stage=self.stages[name], distances=())).strokes
        )

    def _decided(self) -> dict[Plan, list[str]]:
        """The plans of the step about to be drawn, and whose they are."""
        self.run.look(self.latent)
        distances = self.run.distances()[0]
        plans: dict[Plan, list[str]] = {}
        for name, policy in self.members.items():
            plans.setdefault(policy.decide(seen(self.run, 0, distances, self.stages[name])), []).append(name)
        return plans

    def _part(self, names: list[str]) -> "_Path":
        """A path of its own for some members, from here on."""
        return _Path(
            self.start,
            {name: self.members[name] for name in names},
            {name: self.stages[name] for name in names},
            self.run.fork(),
            self.latent,
            self.scheduler,
        )

    def _step(self) -> None:
        """Predict, guide, and let the scheduler step, as the pipeline does."""
        step = len(self.run.drawn)
        predictions = [self.run.draw(inputs, self) for inputs in self.start.inputs(self.latent, step)]
        prediction, time = self.start.guide(predictions, self.latent, step), self.scheduler.timesteps[step]
        told = self.start.way.tells(time)
        self.latent = self.scheduler.step(prediction, time, self.latent, return_dict=False, **told)[0]
