"""What a solver of several steps remembers, where the small model takes over from the large one: better forgotten.

UniPC and DPM-Solver++ of second order add to a step a share of the change of the clean estimate since the last one.
After a switch that is mostly the difference between the two models, and leads away from the large one; the step is
then of first order instead. Towards the large model the same share helps, and is kept (see docs/performance.md).

Images of a batch switch at steps of their own, as if drawn alone: from the first such step on each has a scheduler of
its own, beside the pipeline's, which goes on counting.
"""

import copy
from collections.abc import Callable, Collection
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor

from .estimate import measurable


class History:
    """Makes the steps of one scheduler."""

    def __init__(self) -> None:
        """Nothing is remembered apart."""
        self._grid: Any = None
        self._apart: list[Any] = []

    def step(self, scheduler: Any, step: Callable[[], Any], forgets: Collection[int], arguments: dict[str, Any]) -> Any:
        """Make a step.

        Args:
            scheduler: it.
            step: makes its own.
            forgets: images whose next step is of first order.
            arguments: of the step, by name.

        Returns:
            what `step` returned.
        """
        if not remembers(scheduler):
            return step()
        if scheduler.timesteps is not self._grid:
            self._grid, self._apart = scheduler.timesteps, []
        images = len(arguments["sample"])
        if not self._apart and 0 < len(forgets) < images:
            self._apart = [alone(scheduler, image) for image in range(images)]
        if not self._apart:
            if forgets:
                forget(scheduler)
            return step()
        for image in forgets:
            forget(self._apart[image])
        made = [_one(each, image, arguments) for image, each in enumerate(self._apart)]
        result, returned = step(), torch.cat(made)
        if isinstance(result, tuple):
            return returned, *result[1:]
        result.prev_sample = returned
        return result


def remembers(scheduler: Any) -> bool:
    """Whether a scheduler steps by earlier predictions in a way that is known here."""
    return isinstance(scheduler, UniPCMultistepScheduler | DPMSolverMultistepScheduler) and measurable(scheduler)


def forget(scheduler: Any) -> None:
    """Let the next step be of first order, and the latent stay as the last one left it."""
    scheduler.lower_order_nums = 0
    if isinstance(scheduler, UniPCMultistepScheduler):
        scheduler.last_sample = None


def alone(scheduler: Any, image: int) -> Any:
    """The scheduler as it would be, had it stepped one image of the batch only."""
    one = copy.copy(scheduler)
    one.model_outputs = [_row(output, image) for output in scheduler.model_outputs]
    if isinstance(scheduler, UniPCMultistepScheduler):
        one.timestep_list = list(scheduler.timestep_list)
        one.last_sample = _row(scheduler.last_sample, image)
    return one


def _row(tensor: Tensor | None, image: int) -> Tensor | None:
    return None if tensor is None else tensor[image, None]


def _one(scheduler: Any, image: int, arguments: dict[str, Any]) -> Tensor:
    """One image's step by a scheduler of its own."""
    rows = {name: _row(arguments[name], image) for name in ("model_output", "sample")}
    return scheduler.step(timestep=arguments["timestep"], return_dict=False, **rows)[0]
