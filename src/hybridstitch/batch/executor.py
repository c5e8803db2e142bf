"""Who does the work: this process, or several at seats. Another engine needs no more than `Executor`."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from .seats import ProcessSeat, Seats
from .work import AttemptGroup, Desk, DeviceLost, Outcome, Worker, lost


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
    return Here(desks[0]) if len(desks) == 1 else processes_at(desks)


def processes_at(desks: Sequence[Desk]) -> Seats:
    """A process a desk."""
    return Seats([ProcessSeat(desk) for desk in desks], desks[0].out)


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
