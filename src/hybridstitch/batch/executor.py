"""Who does the work: this process, or one process a device. Another engine needs no more than `Executor`."""

import multiprocessing
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Literal, Protocol

from .job import WorkError
from .ledger import Ledger
from .work import Desk, Outcome, Task, Worker

PATIENCE_SECONDS = 10  # for a worker to end by itself


class Executor(Protocol):
    """Does tasks, each once, in any order, at any place that sees the folder."""

    def map(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """What became of each task, as it is known. May be called again.

        Raises:
            WorkError: nobody can work.
        """
        ...

    def close(self) -> None:
        """Let the workers go, in the middle of a task too."""
        ...


def local(desks: Sequence[Desk]) -> Executor:
    """This machine: one desk in this process, several in a process each."""
    return Here(desks[0]) if len(desks) == 1 else Processes(desks)


class Here:
    """One worker, in this process."""

    def __init__(self, desk: Desk) -> None:
        """At a desk; the pair is opened for the first task."""
        self.desk = desk
        self._worker: Worker | None = None

    def map(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """See `Executor`. Errors of opening the pair are raised as they are."""
        for task in tasks:
            self._worker = self._worker or self.desk.worker()
            yield self._worker.do(task)

    def close(self) -> None:
        """See `Executor`."""
        if self._worker is not None:
            self._worker.ledger.close()


@dataclass(slots=True)
class Seat:
    """A desk with a process at it; `ready` once it has opened the pair."""

    desk: Desk
    process: BaseProcess
    line: Connection
    ready: bool = False


class Processes:
    """A process a desk. One that dies costs its task a try; another sits down in its place."""

    def __init__(self, desks: Sequence[Desk]) -> None:
        """At several desks; the processes begin with the first tasks."""
        self.desks = desks
        self._seats: list[Seat] = []
        self._ledger = Ledger(desks[0].out)  # rows of workers that died

    def map(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """See `Executor`."""
        self._seats = self._seats or [_sit(desk) for desk in self.desks]
        waiting = iter(tasks)
        busy: dict[Any, tuple[int, Task]] = {}  # by line

        def give(place: int) -> None:
            task = next(waiting, None)
            if task is not None:
                seat = self._seats[place]
                busy[seat.line] = place, task
                with suppress(BrokenPipeError):  # it died; `wait` will tell
                    seat.line.send(task)

        for place in range(len(self._seats)):
            give(place)
        while busy:
            for line in wait(list(busy)):
                place, task = busy[line]
                outcome = self._hear(place, task)
                if outcome is not None:
                    del busy[line]
                    give(place)
                    yield outcome

    def close(self) -> None:
        """See `Executor`."""
        for seat in self._seats:
            seat.line.close()
        for seat in self._seats:
            seat.process.join(PATIENCE_SECONDS)
            if seat.process.is_alive():
                seat.process.kill()
                seat.process.join()
        self._seats = []
        self._ledger.close()

    def _hear(self, place: int, task: Task) -> Outcome | None:
        """What a worker has to say: an outcome, or None when it is only ready."""
        seat = self._seats[place]
        try:
            said: Outcome | Literal["ready"] | str = seat.line.recv()
        except (EOFError, ConnectionResetError):
            return self._died(place, task)
        if isinstance(said, Outcome):
            return said
        if said != "ready":
            raise WorkError(f"the worker on {seat.desk.device} cannot open the pair: {said}")
        seat.ready = True
        return None

    def _died(self, place: int, task: Task) -> Outcome:
        seat = self._seats[place]
        seat.line.close()
        seat.process.join()
        code = seat.process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if not seat.ready:
            raise WorkError(
                f"the worker on {seat.desk.device} died ({how}) before it had opened the pair; "
                "is there memory enough for one pair a device?"
            )
        row = seat.desk.error(task, "WorkerDied", f"the process that drew it ended with {how}")
        with suppress(OSError):
            self._ledger.add(row)
        self._seats[place] = _sit(seat.desk)
        return Outcome(task=task, row=row)


def _sit(desk: Desk) -> Seat:
    """A new process at a desk."""
    spawn = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_work, args=(desk, theirs), daemon=True)
    process.start()
    theirs.close()  # so that its death closes the line
    return Seat(desk, process, ours)


def _work(desk: Desk, line: Connection) -> None:
    """The life of a worker process: it ends when nobody listens any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interruption is the caller's to handle
    try:
        worker = desk.worker()
    except Exception as error:
        line.send(f"{type(error).__name__}: {error}")
        return
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        line.send("ready")
        while True:
            line.send(worker.do(line.recv()))
