"""What a member of a reproduction's crew works with: the pair and the scores, opened when they are first needed."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch

from ..batch.crew import Crew, LocalCrew, cores
from .scorer import Scorer, open_scorer
from .settings import Settings

CrewOf = Callable[[Settings], AbstractContextManager[Crew["Equipment"]]]


class Equipment:
    """A stitched pipeline and what scores pictures, each opened when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        """For these settings; nothing is loaded yet."""
        self.settings = settings
        self._pipe: Any = None
        self._scorer: Scorer | None = None

    @property
    def pipe(self) -> Any:
        """The pipeline; a miniature one on a CPU draws with one thread, in every process alike."""
        if self._pipe is None:
            if single(self.settings):
                torch.set_num_threads(1)
            self._pipe = self.settings.open()
        return self._pipe

    @property
    def scorer(self) -> Scorer:
        """What scores pictures; the large model's are drawn by then."""
        if self._scorer is None:
            self._scorer = open_scorer(self.settings)
        return self._scorer


def single(settings: Settings) -> bool:
    """Whether one thread draws fastest: models this small wait for each other on more."""
    return settings.mini and settings.device == "cpu"


def crew_of(settings: Settings) -> Crew[Equipment]:
    """A process for each core for the miniature pair on a CPU, which one thread draws fastest; else this one."""
    count = max(1, min(cores(), settings.n)) if single(settings) else 1
    return LocalCrew(partial(Equipment, settings), count, "fresh", (__name__, "diffusers.pipelines.pipeline_utils"))
