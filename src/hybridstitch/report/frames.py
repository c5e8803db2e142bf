"""The picture emerging: at some steps, what the finished picture was expected to be, d_i (Eq. 10)."""

from typing import Any

from PIL import Image
from torch import Tensor

from ..drawing.stepped import Stepped
from ..pair.decoding import in_one, pictures
from ..pair.observer import watch
from .clip import shown

COUNT = 8


class Frames:
    """Listens to a scheduler and keeps d_i of a few steps; decoding waits until the run is over.

    Attributes:
        steps: the steps kept, ascending.
    """

    def __init__(self, steps: int, count: int = COUNT) -> None:
        """Choose `count` steps of T, the first and the last among them.

        Args:
            steps: T.
            count: how many.
        """
        count = min(count, steps)
        self.steps = tuple(round(k * (steps - 1) / max(1, count - 1)) for k in range(count))
        self._step = 0
        self._kept: list[tuple[int, Tensor]] = []

    def follow(self, pipe: Any) -> None:
        """Listen to this pipeline's scheduler, as long as this object lives."""
        watch(pipe.scheduler, self)

    def observe(self, step: Stepped) -> None:
        """The scheduler made a step."""
        if self._step in self.steps:
            expected = step.returned if step.clean is None else step.clean
            self._kept.append((self._step, expected[:1].clone()))  # (1, …)
        self._step += 1

    def decode(self, pipe: Any, **call: Any) -> tuple[tuple[int, Image.Image], ...]:
        """(step, picture) of the steps kept; of a video some frames, one below the other.

        Args:
            pipe: which decodes.
            call: as it was called.
        """
        found = []
        for step, latent in self._kept:
            drawn = pictures(pipe, latent, **call)
            found.append((step, in_one([drawn[frame] for frame in shown(len(drawn))])))
        return tuple(found)
