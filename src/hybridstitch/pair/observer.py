"""The second seat: seeing the scheduler's steps, where guided prediction, σ and both latents are known exactly.

An observer stands in for one scheduler's `step`, calls the original and reports. It holds its scheduler and its
listeners weakly. Copies of a watched scheduler, shallow, deep or pickled, are schedulers as they were found: they step
themselves and nobody watches them.
"""

import inspect
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Protocol
from weakref import WeakSet, ref

from diffusers import UniPCMultistepScheduler

from ..drawing.stepped import Stepped
from ..errors import SchedulerError
from ..policies.policy import Policy
from .estimate import estimate, measurable, noise_level
from .history import History

EULER = "pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config, stochastic_sampling=False)"


class Listener(Protocol):
    """Whoever wants to know about steps."""

    def observe(self, step: Stepped) -> None:
        """The scheduler made a step."""
        ...

    def forgets(self) -> Collection[int]:
        """Images in whose next step a solver of several steps should not look back, see `history`."""
        return ()


class Observer:
    """Stands in for `scheduler.step`, signature kept.

    Attributes:
        found: the scheduler's own entry that it stands in for, None for its class's method.
        listeners: who is told.
    """

    def __init__(self, scheduler: Any) -> None:
        """Prepare; `watch` installs.

        Args:
            scheduler: a diffusers scheduler.
        """
        self._scheduler: Callable[[], Any] = ref(scheduler)
        self._history = History()
        self.found: Callable[..., Any] | None = vars(scheduler).get("step")
        self.listeners: WeakSet[Listener] = WeakSet()
        self._bind = inspect.signature(type(scheduler).step.__get__(scheduler)).bind
        self.__signature__ = inspect.signature(scheduler.step)
        self.__doc__, self.__name__ = scheduler.step.__doc__, "step"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make the step as the listeners want it, then tell them."""
        scheduler = self._scheduler()
        step = partial(self.found or type(scheduler).step.__get__(scheduler), *args, **kwargs)
        listeners = list(self.listeners)
        if not listeners:
            return step()
        arguments = self._bind(*args, **kwargs).arguments
        forgets = {image for listener in listeners for image in listener.forgets()}
        result = self._history.step(scheduler, step, forgets, arguments)
        made = stepped(scheduler, result, **arguments)
        for listener in listeners:
            listener.observe(made)
        return result


def stepped(scheduler: Any, result: Any, *, model_output: Any, sample: Any, timestep: Any, **step: Any) -> Stepped:
    """The step that a scheduler just made.

    Args:
        scheduler: it made the step.
        result: what `step` returned.
        model_output, sample, timestep, step: what `step` was given.
    """
    return Stepped(
        latent=sample,
        prediction=model_output,
        sigma=noise_level(scheduler),
        returned=result[0] if isinstance(result, tuple) else result.prev_sample,
        clean=estimate(scheduler, model_output, sample, timestep, **step),
    )


def watch(scheduler: Any, listener: Listener) -> None:
    """Tell `listener` of every step the scheduler makes from now on."""
    if not isinstance(vars(scheduler).get("step"), Observer):
        scheduler.step = Observer(scheduler)
        scheduler.__reduce_ex__ = partial(_unwatched, ref(scheduler))  # asked by `copy` and `pickle`
    scheduler.step.listeners.add(listener)


def unwatch(scheduler: Any, listener: Listener) -> None:
    """Stop telling `listener`; the last one leaves the scheduler as it was found."""
    step = vars(scheduler).get("step")
    if isinstance(step, Observer):
        step.listeners.discard(listener)
        if not step.listeners:
            del scheduler.step, scheduler.__reduce_ex__
            if step.found is not None:
                scheduler.step = step.found


def _unwatched(watched: Callable[[], Any], protocol: int) -> tuple[Any, ...]:
    """What `copy` and `pickle` make another scheduler of: an observer would step the one it was made for."""
    scheduler = watched()
    reduced: Any = object.__reduce_ex__(scheduler, protocol)
    make, arguments, state, *rest = reduced
    step = state["step"]
    others = {name: value for name, value in state.items() if name not in ("step", "__reduce_ex__")}
    return make, arguments, others if step.found is None else {**others, "step": step.found}, *rest


def check_scheduler(scheduler: Any, policy: Policy) -> None:
    """Refuse schedulers whose steps the policy cannot be decided from.

    Raises:
        SchedulerError: several calls a step, or an adaptive or masked policy without measurable steps.
    """
    name = type(scheduler).__name__
    if scheduler.order != 1:
        raise SchedulerError(
            f"{name} is of order {scheduler.order} and repeats timesteps; stitching needs one call a step, as in "
            f"{EULER}"
        )
    if not (policy.adaptive or policy.can_mask):
        return
    if not measurable(scheduler):
        raise SchedulerError(
            f"{policy.name} decides from the change between steps, which cannot be measured with {name} (stochastic, "
            "clipping, or not known to this release); it can with UniPC, DPM-Solver++ and DDIM without clipping or "
            f"thresholding; use one of these, {EULER}, or a program without masks such as 'L20 S*'"
        )
    if policy.measured[0] == "latent" and isinstance(scheduler, UniPCMultistepScheduler):
        raise SchedulerError(
            f"{policy.name} compares the latents of steps (signal=latent), which {name} corrects afterwards; use "
            f"signal=denoised, or {EULER}"
        )
