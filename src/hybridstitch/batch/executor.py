"""Who does the work: this process, or one process a device. Another engine needs no more than `Executor`."""

import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Protocol

from ..errors import StitchWarning
from .job import WorkError
from .ledger import Ledger
from .pool import Pool
from .work import Attempt, Desk, DeviceLost, Outcome, Worker, WorkerDied, lost

AttemptGroup = Sequence[Attempt]  # drawn together


class Executor(Protocol):
    """Does attempts, each once, in any order, at any place that sees the folder."""

    def map(self, groups: Iterable[AttemptGroup]) -> Iterator[Outcome]:
        """What became of each attempt, as it is known. May be called again.

        Args:
            groups: attempts that one call of a pipeline can draw together.

        Raises:
            WorkError: nobody can work.
        """
        ...

    def close(self) -> None:
        """Let the workers go, in the middle of a group too."""
        ...


def local(desks: Sequence[Desk]) -> Executor:
    """This machine: one desk in this process, several in a process each."""
    return Here(desks[0]) if len(desks) == 1 else Processes(desks)


class Here:
    """One worker, in this process."""

    def __init__(self, desk: Desk) -> None:
        """At a desk; the pair is opened for the first group."""
        self.desk = desk
        self._worker: Worker | None = None

    def map(self, groups: Iterable[AttemptGroup]) -> Iterator[Outcome]:
        """See `Executor`. Errors of opening the pair are raised as they are."""
        for group in groups:
            self._worker = self._worker or self.desk.worker()
            try:
                outcomes = self._worker.do(group)
            except DeviceLost as error:  # so is this process, and with it all that is left to do
                outcomes = lost(self.desk, self._worker.ledger, group, error, hopeless=str(error))
            yield from outcomes

    def close(self) -> None:
        """See `Executor`."""
        if self._worker is not None:
            self._worker.ledger.close()


class Seat:
    """A desk, and the process at it that opens the pair and draws.

    Attributes:
        desk: the desk.
        pool: of this one process.
        opened: whether it has opened the pair.
    """

    def __init__(self, desk: Desk) -> None:
        """At a desk; the process begins with its first task."""
        self.desk = desk
        self._sit()

    def submit(self, group: AttemptGroup) -> "Future[list[Outcome]]":
        """Draw a group, or open the pair if that was not done yet."""
        try:
            return self.pool.submit(Worker.do, group if self.opened else ())
        except BrokenProcessPool:  # it died while it had nothing to do
            self.renew()
            return self.pool.submit(Worker.do, ())

    def renew(self) -> None:
        """Another process in the place of this one."""
        self.pool.close()
        self._sit()

    def _sit(self) -> None:
        self.pool = Pool(partial(_open, self.desk), 1, "spawn")  # CUDA does not survive a fork
        self.opened = False


class Processes:
    """A process a desk. Where one dies or loses its device, another sits down; a desk where nobody can open the pair is
    given up."""

    def __init__(self, desks: Sequence[Desk]) -> None:
        """At several desks; the processes begin with the first groups."""
        self._seats = [Seat(desk) for desk in desks]
        self._ledger = Ledger(desks[0].out)  # rows of workers that can write none themselves

    def map(self, groups: Iterable[AttemptGroup]) -> Iterator[Outcome]:
        """See `Executor`."""
        waiting = deque(groups)
        busy: dict[Future[list[Outcome]], tuple[Seat, AttemptGroup]] = {}
        while True:
            working = [seat for seat, _ in busy.values()]
            for seat in [seat for seat in self._seats if seat not in working]:
                if waiting:
                    group = waiting.popleft()
                    busy[seat.submit(group)] = seat, group
            if not busy:
                return
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                seat, group = busy.pop(future)
                try:
                    outcomes = future.result()
                except WorkError as error:
                    waiting.appendleft(group)
                    self._give_up(seat, str(error))
                except DeviceLost as error:
                    yield from self._replace(seat, group, error, spared=True)
                except BrokenProcessPool:
                    how = seat.pool.ended()
                    if seat.opened:
                        error = WorkerDied(f"the process that drew it ended with {how}")
                        yield from self._replace(seat, group, error, spared=len(group) > 1)  # nobody knows whose fault
                    else:
                        waiting.appendleft(group)
                        why = f"died ({how}) before it had opened the pair"
                        self._give_up(seat, f"{why}; is there memory enough for one pair a device?")
                else:
                    if not seat.opened:
                        seat.opened = True
                        busy[seat.submit(group)] = seat, group
                    yield from outcomes

    def close(self) -> None:
        """See `Executor`."""
        for seat in self._seats:
            seat.pool.close()
        self._ledger.close()

    def _replace(
        self, seat: Seat, group: AttemptGroup, error: DeviceLost | WorkerDied, *, spared: bool
    ) -> list[Outcome]:
        """Another process at a desk, and what became of the group that the last one had in hand."""
        seat.renew()
        return lost(seat.desk, self._ledger, group, error, spared=spared)

    def _give_up(self, seat: Seat, why: str) -> None:
        """Nobody sits at a desk any more.

        Raises:
            WorkError: nor at any other.
        """
        seat.pool.close()
        self._seats.remove(seat)
        said = f"the worker on {seat.desk.device} {why}"
        if not self._seats:
            raise WorkError(said)
        warnings.warn(f"{said}; the others go on without it", StitchWarning, stacklevel=2)


def _open(desk: Desk) -> Worker:
    """Somebody at a desk; whatever goes wrong with that is an error that any process understands."""
    try:
        return desk.worker()
    except Exception as error:
        raise WorkError(f"cannot open the pair: {type(error).__name__}: {error}") from error
