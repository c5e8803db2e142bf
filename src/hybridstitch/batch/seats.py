"""Workers side by side, each at a seat that opens the pair and draws; groups are pulled one at a time.

What a seat is decides where its worker lives: in a process of this machine (`ProcessSeat`), or anywhere in a cluster
(`on_ray.RaySeat`). Where a worker dies or loses its device, another sits down; a seat where nobody can open the pair is
given up. A seat that is not open yet holds no work back.

Nor does a slow one: once nothing waits, a group that takes far longer than most is given to an idle seat as well, and
the first result counts. Ids name the pictures, so whoever is second writes the same file again, or is let go before.
"""

import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Protocol

from ..errors import StitchWarning
from .job import WorkError
from .ledger import Ledger
from .pool import Pool
from .work import AttemptGroup, Desk, DeviceLost, Outcome, Worker, WorkerDied, keep, lost

LATE = 2.0  # times the median seconds of a group, after which an idle seat may draw it as well
LATE_SECONDS = 1.0  # at least
OPENINGS = 3  # workers in a row that may die at a volatile seat before the pair is open


class Seat(Protocol):
    """A desk, and the worker at it.

    Attributes:
        desk: the desk.
        volatile: whether a worker may end through no fault of its job, as machines of a cluster come and go.
    """

    desk: Desk
    volatile: bool

    def submit(self, group: AttemptGroup) -> "Future[list[Outcome]]":
        """Draw a group; an empty one opens the pair.

        Raises:
            WorkerDied: it is known to have ended.
        """
        ...

    def outcomes(self, future: "Future[list[Outcome]]") -> list[Outcome]:
        """What became of a group.

        Raises:
            WorkError: the pair cannot be opened, or nothing can be drawn here any more.
            DeviceLost: see `Worker.do`.
            WorkerDied: says how it ended: "signal SIGKILL".
        """
        ...

    def renew(self) -> None:
        """Another worker in the place of this one."""
        ...

    def close(self) -> None:
        """Let the worker go, in the middle of a group too."""
        ...


@dataclass(slots=True, eq=False)
class Piece:
    """A group in hand.

    Attributes:
        group: what is to be drawn.
        since: when it was first given to a seat, `monotonic`.
        over: whether its result is known; a seat that is still at it is not waited for.
    """

    group: AttemptGroup
    since: float
    over: bool = False


class Seats:
    """An executor: work for several seats."""

    def __init__(self, seats: Sequence[Seat], out: Path) -> None:
        """At several seats; the pair is opened there when there is work.

        Args:
            seats: one at least.
            out: the folder.
        """
        self._seats = list(seats)
        self._opened: list[Seat] = []
        self._opening: dict[Future[list[Outcome]], Seat] = {}
        self._busy: dict[Future[list[Outcome]], tuple[Seat, Piece]] = {}
        self._seconds: list[float] = []  # of each group so far
        self._died: Counter[Seat] = Counter()  # workers in a row that had not opened the pair
        self._ledger = Ledger(out)  # rows of workers that can write none themselves

    def map(self, groups: Iterable[AttemptGroup]) -> Iterator[Outcome]:
        """See `Executor`."""
        waiting = deque(groups)
        while waiting or any(not piece.over for _, piece in self._busy.values()):
            for seat in self._idle():
                if waiting and seat in self._opened:
                    if self._give(seat, Piece(waiting[0], monotonic())):
                        waiting.popleft()
                elif waiting:
                    self._opening[seat.submit(())] = seat
            until = None if waiting else self._until_late()
            for future in wait([*self._busy, *self._opening], until, FIRST_COMPLETED).done:
                if future in self._busy:
                    seat, piece = self._busy.pop(future)
                    try:
                        yield from self._drawn(seat, piece, future)
                    except WorkError as error:
                        self._give_up(seat, str(error))
                        if not (piece.over or self._elsewhere(piece)):
                            waiting.appendleft(piece.group)
                else:
                    self._open(self._opening.pop(future), future)

    def close(self) -> None:
        """See `Executor`."""
        for seat in self._seats:
            seat.close()
        self._ledger.close()

    def _idle(self) -> list[Seat]:
        working = [*self._opening.values(), *(seat for seat, _ in self._busy.values())]
        return [seat for seat in self._seats if seat not in working]

    def _give(self, seat: Seat, piece: Piece) -> bool:
        """Let an open seat draw; False where its worker has ended, and another opens the pair."""
        try:
            self._busy[seat.submit(piece.group)] = seat, piece
        except WorkerDied:  # while it had nothing to do
            self._renew(seat)
            self._opening[seat.submit(())] = seat
            return False
        return True

    def _until_late(self) -> float | None:
        """Give groups that are late to idle seats as well.

        Returns:
            seconds until the next one is late; None where nobody is idle, or no group was timed yet.
        """
        idle = [seat for seat in self._idle() if seat in self._opened]
        hands = Counter(piece for _, piece in self._busy.values())
        alone = sorted((piece for piece, n in hands.items() if n == 1 and not piece.over), key=lambda p: p.since)
        if not (idle and alone and self._seconds):
            return None
        late = max(LATE * median(self._seconds), LATE_SECONDS)
        while idle and alone and monotonic() - alone[0].since >= late:
            self._give(idle.pop(), alone.pop(0))
        return max(alone[0].since + late - monotonic(), 0.0) if idle and alone else None

    def _elsewhere(self, piece: Piece) -> bool:
        """Whether another seat is at it."""
        return any(other is piece for _, other in self._busy.values())

    def _drawn(self, seat: Seat, piece: Piece, future: "Future[list[Outcome]]") -> Iterator[Outcome]:
        """What became of a group; where its worker is lost, another sits down.

        Raises:
            WorkError: nothing can be drawn at this seat any more.
        """
        elsewhere, group = self._elsewhere(piece), piece.group
        try:
            outcomes = seat.outcomes(future)
        except (DeviceLost, WorkerDied) as error:
            self._renew(seat)
            spared = True
            if isinstance(error, WorkerDied):
                error = WorkerDied(f"the process that drew it ended with {error}")
                spared = seat.volatile or len(group) > 1  # nobody knows whose fault it is
            outcomes = lost(seat.desk, self._ledger, group, error, spared=spared)
            if not (piece.over or elsewhere):
                piece.over = True
                yield from outcomes
        else:
            failed = any(outcome.row.status != "done" for outcome in outcomes)
            if piece.over or (failed and elsewhere):
                return
            piece.over = True
            self._seconds.append(monotonic() - piece.since)
            for outcome in outcomes:
                yield outcome if outcome.files is None else keep(outcome, seat.desk, self._ledger)

    def _renew(self, seat: Seat) -> None:
        self._opened.remove(seat)
        seat.renew()

    def _open(self, seat: Seat, future: "Future[list[Outcome]]") -> None:
        """A seat that has the pair open, or why not.

        Raises:
            WorkError: it was the last one.
        """
        try:
            seat.outcomes(future)
        except WorkError as error:
            self._give_up(seat, str(error))
        except WorkerDied as error:
            self._died[seat] += 1
            if seat.volatile and self._died[seat] < OPENINGS:
                seat.renew()
                return
            why = f"died ({error}) before it had opened the pair"
            self._give_up(seat, f"{why}; is there memory enough for one pair a device?")
        else:
            self._died[seat] = 0
            self._opened.append(seat)

    def _give_up(self, seat: Seat, why: str) -> None:
        """Nobody sits at a desk any more.

        Raises:
            WorkError: nor at any other.
        """
        seat.close()
        self._seats.remove(seat)
        if seat in self._opened:
            self._opened.remove(seat)
        said = f"the worker on {seat.desk.device} {why}"
        if not self._seats:
            raise WorkError(said)
        warnings.warn(f"{said}; the others go on without it", StitchWarning, stacklevel=2)


class ProcessSeat:
    """A seat of this machine, with a process of its own."""

    volatile = False

    def __init__(self, desk: Desk) -> None:
        """At a desk; the process begins with its first task."""
        self.desk = desk
        self._pool = self._sit()

    def submit(self, group: AttemptGroup) -> "Future[list[Outcome]]":
        """See `Seat`."""
        try:
            return self._pool.submit(Worker.do, group)
        except BrokenProcessPool as error:
            raise WorkerDied(self._pool.ended()) from error

    def outcomes(self, future: "Future[list[Outcome]]") -> list[Outcome]:
        """See `Seat`."""
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise WorkerDied(self._pool.ended()) from error

    def renew(self) -> None:
        """See `Seat`."""
        self._pool.close()
        self._pool = self._sit()

    def close(self) -> None:
        """See `Seat`."""
        self._pool.close()

    def _sit(self) -> Pool[Worker]:
        return Pool(partial(opened, self.desk), 1, "fresh", self.desk.modules)  # CUDA does not survive a fork


def opened(desk: Desk) -> Worker:
    """Somebody at a desk; whatever goes wrong with that is an error that any process understands.

    Raises:
        WorkError: the pair cannot be opened.
    """
    try:
        return desk.worker()
    except Exception as error:
        raise WorkError(f"cannot open the pair: {type(error).__name__}: {error}") from error
