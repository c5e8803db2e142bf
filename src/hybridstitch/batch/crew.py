"""Tasks side by side: on a CPU one process and one thread for each core, which draws small models faster than one
process on all cores. `ray_crew` has the same in a cluster.

    with LocalCrew(studio, processes(device)) as crew:
        for place, result in crew.map(draw, tasks): …

Work is called with what a member works at, made once in each process, and a task. Results come as they are ready; an
error of any task ends the map, and what was yielded before stays. A forked member shares the models of this process; a
spawned one makes its own. Where there are no forks, on other devices and for one core, tasks are done here.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial
from typing import Any, Generic, Protocol, Self, TypeVar

import torch

from ..errors import RunError
from .pool import Place, Pool, Start

MOST = 8  # processes
Place_co = TypeVar("Place_co", covariant=True)


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def processes(device: torch.device) -> int:
    """How many processes a crew on this device has."""
    return min(cores(), MOST) if device.type == "cpu" and sys.platform == "linux" else 1


class Crew(Protocol[Place_co]):
    """Members that keep their desks between maps; a context manager, so that nobody is left behind."""

    @property
    def here(self) -> Place_co:
        """The desk in this process, which times what is timed."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None:
        """Let the members go, in the middle of a task too."""
        ...

    def map(self, work: Callable[[Place_co, Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Do all tasks.

        Args:
            work: importable by name, called with a desk and a task.
            tasks: what can be sent to a process, dearest first, so that all members end together.

        Yields:
            place of the task and what work gave, as they are ready.

        Raises:
            RunError: a member was killed.
            Exception: what work raised.
        """
        ...


class LocalCrew(Generic[Place]):
    """Processes of this machine, or this one; see `Crew`."""

    def __init__(self, desk: Callable[[], Place], count: int, start: Start = "fork") -> None:
        """A crew; its processes begin with the first map.

        Args:
            desk: makes what a member works at; importable by name for `spawn`.
            count: processes; 1 does everything in this one.
            start: how a process begins.
        """
        self._here, self._count = cache(desk), count
        self._pool = Pool(partial(_with_one_thread, desk), count, start) if count > 1 else None

    @property
    def here(self) -> Place:
        """The desk in this process."""
        return self._here()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let the members go, in the middle of a task too."""
        if self._pool is not None:
            self._pool.close()

    def map(self, work: Callable[[Place, Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """See `Crew`."""
        if self._pool is None:
            yield from ((place, work(self.here, task)) for place, task in enumerate(tasks))
            return
        places = {}
        try:
            for place, task in enumerate(tasks):
                places[self._pool.submit(work, task)] = place
            for future in as_completed(places):
                yield places.pop(future), future.result()
        except BrokenProcessPool as error:
            raise RunError(
                f"a process that draws was killed; is there memory for {self._count} of them? What was done is kept: "
                "run the command again"
            ) from error
        finally:
            for future in places:  # after an error nobody waits for them
                future.cancel()


def _with_one_thread(desk: Callable[[], Place]) -> Place:
    torch.set_num_threads(1)
    return desk()
