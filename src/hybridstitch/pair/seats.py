"""Where a pair sits in a pipeline besides the transformer's place: the scheduler's steps, a second expert, the prompt.

The pipeline is held weakly, and so is its scheduler, which is looked up again at each run.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

from .expert import seat, second, unseat
from .observer import unwatch, watch
from .words import OwnWords, listen, unlisten

if TYPE_CHECKING:
    from .stitched import StitchedTransformer


class Seats:
    """Those of one stitched transformer, none to begin with."""

    def __init__(self) -> None:
        """Follow nobody."""
        self._pipe: Callable[[], Any] = _nobody
        self._scheduler: Callable[[], Any] = _nobody

    @property
    def pipe(self) -> Any:
        """The pipeline, or None."""
        return self._pipe()

    @property
    def scheduler(self) -> Any:
        """The pipeline's scheduler as it is now, or None."""
        pipe = self._pipe()
        return self._scheduler() if pipe is None else pipe.scheduler

    def take(self, pipe: Any, pair: "StitchedTransformer") -> None:
        """Sit in a pipeline."""
        expert = second(pipe)
        if expert is not None:
            seat(pair, expert)
        if isinstance(pair.words, OwnWords):
            listen(pipe, pair.words)
        self.watch(pipe.scheduler, pair)
        self._pipe = ref(pipe)

    def found_in(self, pipe: Any) -> None:
        """Sit where a copied pipeline already has copies of everything else."""
        self._pipe = ref(pipe)

    def watch(self, scheduler: Any, pair: "StitchedTransformer") -> None:
        """See a scheduler's steps from now on, and those of the one before no longer."""
        before = self._scheduler()
        if before is not None and before is not scheduler:
            unwatch(before, pair)
        watch(scheduler, pair)
        self._scheduler = ref(scheduler)

    def leave(self, pair: "StitchedTransformer") -> None:
        """Let everything be as it was found."""
        for scheduler in (self._scheduler(), self.scheduler):
            if scheduler is not None:
                unwatch(scheduler, pair)
        expert = second(self.pipe)
        if expert is not None:
            unseat(expert)
        if self.pipe is not None:
            unlisten(self.pipe)


def _nobody() -> None:
    """No pipeline or scheduler is followed."""
