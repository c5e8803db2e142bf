"""Who draws: this process, or a process for each core when models are small enough for one thread.

    with Crew(settings, workers=2) as crew:
        for image, result in crew.map(draw_image, tasks): …

Work is a function of (`Studio`, task); results come as they are ready. An error of any task ends the map, what was
yielded before stays.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, Self

import torch

from .settings import ReproductionError, Settings

if TYPE_CHECKING:
    from .scoring import Scorer

PATIENCE_SECONDS = 5


class Studio:
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
    def scorer(self) -> "Scorer":
        """What scores pictures; the large model's are drawn by then."""
        from .scoring import open_scorer

        if self._scorer is None:
            self._scorer = open_scorer(self.settings)
        return self._scorer


def single(settings: Settings) -> bool:
    """Whether one thread draws fastest: models this small wait for each other on more."""
    return settings.mini and settings.device == "cpu"


def workers_for(settings: Settings) -> int:
    """A process for each core for the miniature pair on a CPU, which one thread draws fastest; else one."""
    if not single(settings):
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, settings.n))


class Crew:
    """Workers that keep their models between maps."""

    def __init__(self, settings: Settings, workers: int) -> None:
        """A crew; processes begin with the first map."""
        self.settings, self.workers = settings, workers
        self.here = Studio(settings)
        self._seats: dict[Connection, BaseProcess] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let the workers go, in the middle of a task too."""
        for line, process in self._seats.items():
            line.close()
            process.join(PATIENCE_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
        self._seats = {}

    def map(self, work: Callable[[Studio, Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Do all tasks.

        Args:
            work: importable by name, called with a studio and a task.
            tasks: what can be sent to a process.

        Yields:
            place of the task and what work gave, as they are ready.

        Raises:
            ReproductionError: a worker died.
            Exception: what work raised.
        """
        if self.workers == 1 or len(tasks) == 1:
            for place, task in enumerate(tasks):
                yield place, work(self.here, task)
            return
        while len(self._seats) < self.workers:
            ours, process = _sit(self.settings)
            self._seats[ours] = process
        waiting = iter(enumerate(tasks))
        busy: dict[Any, int] = {}

        def give(line: Connection) -> None:
            following = next(waiting, None)
            if following is not None:
                busy[line] = following[0]
                line.send((work, following[1]))

        for line in self._seats:
            give(line)
        while busy:
            for line in wait(list(busy)):
                assert isinstance(line, Connection)
                place = busy.pop(line)
                try:
                    result = line.recv()
                except (EOFError, ConnectionResetError) as error:
                    code = self._seats[line].exitcode
                    raise ReproductionError(
                        f"a process that draws ended (exit code {code}); what is drawn is kept: is there memory for "
                        f"{self.workers} of them? run the same command again"
                    ) from error
                if isinstance(result, BaseException):
                    raise result
                give(line)
                yield place, result


def _sit(settings: Settings) -> tuple[Connection, BaseProcess]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_work, args=(settings, theirs), daemon=True)
    process.start()
    theirs.close()
    return ours, process


def _work(settings: Settings, line: Connection) -> None:
    """The life of a worker: it ends when nobody listens any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    studio = Studio(settings)
    while True:
        try:
            work, task = line.recv()
        except (EOFError, ConnectionResetError):
            return
        try:
            result = work(studio, task)
        except Exception as error:
            result = error
        try:
            line.send(result)
        except (BrokenPipeError, ConnectionResetError):
            return
