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
        opened: whether the process has opened the pair.
        pool: of this one process.
    """

    def __init__(self, desk: Desk) -> None:
        """At a desk; the process begins with its first group."""
        self.desk = desk
        self._sit()

    def submit(self, group: AttemptGroup) -> "Future[list[Outcome]]":
        """Draw a group; one of no attempts opens the pair."""
        try:
            return self.pool.submit(Worker.do, group)
        except BrokenProcessPool:  # it died while it had nothing to do
            self.renew()
            return self.pool.submit(Worker.do, group)

    def renew(self) -> None:
        """Another process in the place of this one."""
        self.pool.close()
        self._sit()

    def _sit(self) -> None:
        self.pool = Pool(partial(_open, self.desk), 1, "spawn")  # CUDA does not survive a fork
        self.opened = False


class Processes:
    """A process a desk. One that dies costs its attempt, one that loses its device does not; another sits down in its
    place. A desk where nobody can open the pair is given up."""

    def __init__(self, desks: Sequence[Desk]) -> None:
        """At several desks; the processes begin with the first groups."""
        self._seats = [Seat(desk) for desk in desks]
        self._ledger = Ledger(desks[0].out)  # rows of workers that died

    def map(self, groups: Iterable[AttemptGroup]) -> Iterator[Outcome]:
        """See `Executor`."""
        waiting = deque(groups)
        busy: dict[Future[list[Outcome]], tuple[Seat, AttemptGroup]] = {}
        while True:
            working = {id(seat) for seat, _ in busy.values()}
            for seat in self._seats:
                if waiting and id(seat) not in working:
                    group = waiting.popleft() if seat.opened else ()
                    busy[seat.submit(group)] = seat, group
            if not busy:
                return
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                seat, group = busy.pop(future)
                try:
                    outcomes = future.result()
                    seat.opened = True
                except WorkError as error:
                    waiting.extendleft([group] if group else [])
                    self._give_up(seat, str(error))
                    continue
                except (BrokenProcessPool, DeviceLost) as error:
                    if not group:
                        how = f"died ({seat.pool.ended()}) before it had opened the pair"
                        self._give_up(seat, f"{how}; is there memory enough for one pair a device?")
                        continue
                    outcomes = self._lost(seat, group, error)
                yield from outcomes

    def close(self) -> None:
        """See `Executor`."""
        for seat in self._seats:
            seat.pool.close()
        self._ledger.close()

    def _lost(self, seat: Seat, group: AttemptGroup, error: BrokenProcessPool | DeviceLost) -> list[Outcome]:
        """What became of a group whose process ended, or must end; another one sits down."""
        if isinstance(error, BrokenProcessPool):
            error = WorkerDied(f"the process that drew it ended with {seat.pool.ended()}")
        seat.renew()
        # of a group of several nobody knows whose fault it was
        return lost(seat.desk, self._ledger, group, error, spared=isinstance(error, DeviceLost) or len(group) > 1)

    def _give_up(self, seat: Seat, why: str) -> None:
        """Nobody sits here any more.

        Raises:
            WorkError: nor anywhere else.
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
