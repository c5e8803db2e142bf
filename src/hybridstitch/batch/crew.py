"""Tasks side by side: on a CPU one process and one thread for each core, which draws small models faster than one
process on all cores.

    with Crew(studio, processes(device)) as crew:
        for place, result in crew.map(draw, tasks): …

Work is called with what a member works at, made once in each process, and a task. Results come as they are ready; an
error of any task ends the map, and what was yielded before stays. A forked member shares the models of this process; a
spawned one makes its own. Where there are no forks, on other devices and for one core, tasks are done here.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Literal, Self, TypeVar

import torch

from ..errors import RunError

MOST = 8  # processes
PATIENCE_SECONDS = 2  # for a member to end by itself
DIES_WITH_ITS_PARENT = 1  # PR_SET_PDEATHSIG of prctl.h
Desk = TypeVar("Desk")


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def processes(device: torch.device) -> int:
    """How many processes a crew on this device has."""
    return min(cores(), MOST) if device.type == "cpu" and sys.platform == "linux" else 1


class Crew(Generic[Desk]):
    """Members that keep their desks between maps; a context manager, so that no process is left behind."""

    def __init__(self, desk: Callable[[], Desk], count: int, start: Literal["fork", "spawn"] = "fork") -> None:
        """A crew; its processes begin with the first map that has a task for them.

        Args:
            desk: makes what a member works at; importable by name for `spawn`.
            count: processes; 1 does everything in this one.
            start: how a process begins.
        """
        self._desk, self._count, self._start = desk, count, start
        self._seats: dict[Connection, Any] = {}

    @cached_property
    def here(self) -> Desk:
        """The desk in this process."""
        return self._desk()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let the members go, in the middle of a task too."""
        for line in self._seats:
            line.close()  # a member that is idle ends by this
        for member in self._seats.values():
            member.join(PATIENCE_SECONDS)
            member.kill()
            member.join()
        self._seats = {}

    def map(self, work: Callable[[Desk, Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Do all tasks.

        Args:
            work: importable by name, called with a desk and a task.
            tasks: what can be sent to a process, dearest first, so that all members end together.

        Yields:
            place of the task and what work gave, as they are ready.

        Raises:
            RunError: a process was killed.
            Exception: what work raised.
        """
        if self._count == 1:
            yield from ((place, work(self.here, task)) for place, task in enumerate(tasks))
            return
        while len(self._seats) < min(self._count, len(tasks)):
            self._sit()
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
                    done, result = line.recv()
                except (EOFError, ConnectionResetError) as error:
                    raise RunError(
                        f"a process that draws was killed; is there memory for {self._count} of them? What was done is "
                        "kept: run the command again"
                    ) from error
                if not done:
                    raise result
                give(line)
                yield place, result

    def _sit(self) -> None:
        """One more member."""
        context = multiprocessing.get_context(self._start)
        mine, theirs = context.Pipe()
        inherited = (*self._seats, mine) if self._start == "fork" else ()
        member = context.Process(target=_serve, args=(theirs, self._desk, inherited), daemon=True)  # pyright: ignore
        with warnings.catch_warnings():  # torch's idle threads are no danger to a fork that uses one thread
            warnings.simplefilter("ignore", DeprecationWarning)
            member.start()
        theirs.close()
        self._seats[mine] = member


def _serve(line: Connection, make: Callable[[], Any], inherited: Sequence[Connection]) -> None:
    """The life of a member: it ends when nobody listens any more.

    Args:
        line: to whoever gives the tasks.
        make: of the desk.
        inherited: ends of lines that came along with the fork; held open, they would hide that end's closing.
    """
    for other in inherited:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interruption is the caller's to handle
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIES_WITH_ITS_PARENT, signal.SIGKILL)  # not at the end of a task that nobody waits for
    torch.set_num_threads(1)
    desk = make()
    try:
        while True:
            work, task = line.recv()
            try:
                answer = (True, work(desk, task))
            except Exception as error:
                answer = (False, error)
            line.send(answer)
    except (EOFError, OSError):
        return
