"""Tasks side by side: on a CPU one process and one thread for each core, which is faster than one process on all.

The processes are forks, so the models are in memory once. On other devices, where forks are not to be had, and for
one core, tasks are done here, one after the other.
"""

import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Self

import torch

from ..errors import RunError

MOST = 8  # processes
Work = Callable[[Any], Any]


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def processes(device: torch.device) -> int:
    """How many processes a crew on this device has."""
    return min(cores(), MOST) if device.type == "cpu" and sys.platform == "linux" else 1


class Crew:
    """Does tasks, in any order; a context manager, so that no process is left behind."""

    def __init__(self, work: Work, count: int) -> None:
        """Start.

        Args:
            work: from a task to its result; both must survive pickling.
            count: processes; 1 does everything in this one.
        """
        self._work = work
        self._lines: list[Connection] = []
        self._members: list[Any] = []
        if count > 1:
            fork = multiprocessing.get_context("fork")
            for _ in range(count):
                mine, theirs = fork.Pipe()
                member = fork.Process(target=_serve, args=(theirs, work, (*self._lines, mine)), daemon=True)
                with warnings.catch_warnings():  # torch's idle threads are no danger to a fork that uses one thread
                    warnings.simplefilter("ignore", DeprecationWarning)
                    member.start()
                theirs.close()
                self._lines.append(mine)
                self._members.append(member)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for line in self._lines:
            line.close()
        for member in self._members:
            member.terminate()
            member.join()

    def do(self, tasks: Sequence[Any]) -> Iterator[Any]:
        """Do tasks; results as they come.

        Args:
            tasks: dearest first, so that all members end together.

        Raises:
            RunError: a process was killed.
        """
        if not self._lines:
            yield from map(self._work, tasks)
            return
        left = list(reversed(tasks))
        busy: set[Connection] = set()
        for line in self._lines:
            if left:
                line.send(left.pop())
                busy.add(line)
        while busy:
            for line in wait(list(busy)):
                assert isinstance(line, Connection)
                try:
                    done, result = line.recv()
                except EOFError as error:
                    raise RunError(
                        "a process of the calibration was killed, perhaps for memory; run the command again, it goes "
                        "on where it stopped"
                    ) from error
                if not done:
                    raise result
                busy.discard(line)
                if left:
                    line.send(left.pop())
                    busy.add(line)
                yield result


def _serve(line: Connection, work: Work, others: Sequence[Connection]) -> None:
    """Do what comes, until the other end closes.

    Args:
        line: to whoever gives the tasks.
        work: see `Crew`.
        others: ends of lines that came along with the fork; held open, they would hide that end's closing.
    """
    for other in others:
        other.close()
    torch.set_num_threads(1)
    try:
        while True:
            task = line.recv()
            try:
                answer = (True, work(task))
            except Exception as error:
                answer = (False, error)
            line.send(answer)
    except (EOFError, OSError, KeyboardInterrupt):
        return
