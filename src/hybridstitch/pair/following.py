"""The pipeline and the scheduler that a stitched model follows, both held weakly."""

from collections.abc import Callable
from typing import Any, Self
from weakref import ref

from .observer import Listener, unwatch, watch


class Following:
    """Whom a listener follows; a pipeline's scheduler may be another one at each run."""

    def __init__(self) -> None:
        """Nobody."""
        self._pipe: Callable[[], Any] = _nobody
        self._scheduler: Callable[[], Any] = _nobody

    @property
    def pipe(self) -> Any:
        """The pipeline, or None."""
        return self._pipe()

    @property
    def scheduler(self) -> Any:
        """The pipeline's scheduler as it is now, the last one watched where there is no pipeline, or None."""
        pipe = self._pipe()
        return self._scheduler() if pipe is None else pipe.scheduler

    def follow(self, pipe: Any, listener: Listener) -> None:
        """Let a listener hear of the steps of a pipeline's scheduler."""
        self.watch(pipe.scheduler, listener)
        self._pipe = ref(pipe)

    def watch(self, scheduler: Any, listener: Listener) -> None:
        """Let a listener hear of this scheduler's steps, and of no other's."""
        before = self._scheduler()
        if before is not None and before is not scheduler:
            unwatch(before, listener)
        watch(scheduler, listener)
        self._scheduler = ref(scheduler)

    def leave(self, listener: Listener) -> None:
        """Let the schedulers be as they were found."""
        for scheduler in (self._scheduler(), self.scheduler):
            if scheduler is not None:
                unwatch(scheduler, listener)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Follows the copy of the pipeline, if that is copied too."""
        copied = type(self)()
        pipe = memo.get(id(self._pipe()))
        if pipe is not None:
            copied._pipe = ref(pipe)
        return copied


def _nobody() -> None:
    """No pipeline or scheduler is followed."""
