"""The second seat: seeing the scheduler's steps, where guided prediction, σ and both latents are known exactly.

An observer stands in for one scheduler's `step`, calls the original and reports. It holds its scheduler and its
listeners weakly. A deep copy of the scheduler takes a copy of it along that steps the copy and has no listeners yet; a
shallow copy gets its own when it is watched.
"""

import copy
import inspect
from collections.abc import Callable
from typing import Any, Protocol, Self
from weakref import WeakSet, ref

from diffusers import FlowMatchEulerDiscreteScheduler

from ..drawing.stepped import Stepped
from ..errors import SchedulerError
from ..policies.policy import Policy

FIRST = ("model_output", "timestep", "sample")  # what every diffusers scheduler's step begins with


class Listener(Protocol):
    """Whoever wants to know about steps."""

    def observe(self, step: Stepped) -> None:
        """The scheduler made a step; see `run.Run.observe`."""
        ...


class Observer:
    """Stands in for `scheduler.step`, signature kept.

    Attributes:
        listeners: who is told.
    """

    def __init__(self, scheduler: Any) -> None:
        """Prepare; `watch` installs.

        Args:
            scheduler: a diffusers scheduler.
        """
        self._scheduler: Callable[[], Any] = ref(scheduler)
        found = vars(scheduler).get("step")
        self.found: Callable[..., Any] | None = found.found if isinstance(found, Observer) else found
        self.listeners: WeakSet[Listener] = WeakSet()
        self.__signature__ = inspect.signature(scheduler.step)
        self.__doc__, self.__name__ = scheduler.step.__doc__, "step"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make the step, then tell."""
        scheduler = self._scheduler()
        step = self.found or type(scheduler).step.__get__(scheduler)
        result = step(*args, **kwargs)
        if self.listeners:
            given = {**dict(zip(FIRST, args, strict=False)), **kwargs}
            returned = result[0] if isinstance(result, tuple) else result.prev_sample
            sigma = scheduler.sigmas[scheduler.step_index - 1] if measurable(scheduler) else None
            latent, prediction = given["sample"], given["model_output"]
            for listener in list(self.listeners):
                listener.observe(
                    Stepped(
                        latent=latent,
                        prediction=prediction,
                        sigma=sigma,
                        returned=returned,
                        clean=None
                        if sigma is None
                        else given["sample"].float() - sigma * given["model_output"].float(),
                    )
                )
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Follow the scheduler into its copy."""
        copied = copy.copy(self)
        copied._scheduler = ref(memo[id(self._scheduler())])
        copied.listeners = WeakSet()
        return copied

    def stands_in_for(self, scheduler: Any) -> bool:
        """Whether it is this scheduler's step that is made, not that of one it was copied from."""
        return self._scheduler() is scheduler


def watch(scheduler: Any, listener: Listener) -> None:
    """Tell `listener` of every step the scheduler makes from now on."""
    step = vars(scheduler).get("step")
    if not isinstance(step, Observer) or not step.stands_in_for(scheduler):
        step = scheduler.step = Observer(scheduler)
    step.listeners.add(listener)


def unwatch(scheduler: Any, listener: Listener) -> None:
    """Stop telling `listener`; the last one leaves the scheduler as it was found."""
    step = vars(scheduler).get("step")
    if isinstance(step, Observer):
        step.listeners.discard(listener)
        if not step.listeners:
            del scheduler.step
            if step.found is not None:
                scheduler.step = step.found


def measurable(scheduler: Any) -> bool:
    """Whether Eq. 10 holds for the scheduler's steps: deterministic flow matching by Euler's method."""
    return (
        isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
        and not scheduler.config.get("stochastic_sampling", False)
        and not scheduler.config.get("invert_sigmas", False)
    )


def check_scheduler(scheduler: Any, policy: Policy) -> None:
    """Refuse schedulers whose steps the policy cannot be decided from.

    Raises:
        SchedulerError: several calls a step, or an adaptive or masked policy without measurable steps.
    """
    name = type(scheduler).__name__
    advice = (
        "pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config, stochastic_sampling=False)"
    )
    if scheduler.order != 1:
        raise SchedulerError(
            f"{name} is of order {scheduler.order} and repeats timesteps; stitching needs one call a step, as in "
            f"{advice}"
        )
    if (policy.adaptive or policy.can_mask) and not measurable(scheduler):
        raise SchedulerError(
            f"{policy.name} decides from the change between steps, which {name} (stochastic, multistep or not flow "
            f"matching) does not show; use {advice}, or a program of whole steps such as 'L20 S*'"
        )
