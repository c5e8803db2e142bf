"""What a benchmark compares, side by side in slices of a few seconds: one goes on, the others stand still.

    with standing_still({"a": open_a, "b": open_b}) as sides:
        drawn = in_slices(sides, dict.fromkeys(sides, 24))   # what each of them answers to 24

A machine's pace drifts by a tenth within half a minute, and a cluster that waits takes part of a core. So each side is
a process, opened once; it works for some seconds, and is then stopped (SIGSTOP) with all processes that it began, until
all others have had theirs. `Side.seconds` counts only the time in which a side goes on.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing.connection import Connection
from time import monotonic
from typing import Any

import psutil

SLICE_SECONDS = 4.0
Answers = AbstractContextManager[Callable[[Any], Any]]


class Side:
    """A process that answers what it is told; it goes on only within `go_on`."""

    def __init__(self, name: str, open: Callable[[], Answers]) -> None:
        """Open it, which it does without a pause.

        Args:
            name: for errors.
            open: gives what answers, in a process of its own; importable by name.
        """
        self.name = name
        since = monotonic()
        context = multiprocessing.get_context("spawn")
        self._connection, there = context.Pipe()
        self._process = context.Process(target=_answer, args=(open, there))
        self._process.start()
        there.close()
        self.answer()
        self._still: list[int] = []  # processes that are stopped
        self._stop()
        self._going = [(since, monotonic())]  # from when to when

    def tell(self, told: Any) -> None:
        """What to answer; nothing happens before it goes on."""
        self._connection.send(told)

    def go_on(self, seconds: float) -> bool:
        """Go on for some seconds, or until there is an answer; whether there is."""
        since = monotonic()
        self._continue()
        answered = self._connection.poll(seconds)
        self._stop()
        self._going.append((since, monotonic()))
        return answered

    def answer(self) -> Any:
        """What it answers.

        Raises:
            SystemExit: it ended.
        """
        try:
            return self._connection.recv()
        except EOFError as error:
            raise SystemExit(f"the process of {self.name!r} ended") from error

    def seconds(self, instant: float) -> float:
        """Seconds for which it had gone on at an instant of `time.monotonic`."""
        return sum(max(0.0, min(instant, until) - since) for since, until in self._going)

    def close(self) -> None:
        """Let it end, with all that it began."""
        self._continue()
        with suppress(BrokenPipeError):
            self.tell(None)
        self._process.join()

    def _stop(self) -> None:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            self._still = [each.pid for each in (process, *process.children(recursive=True))]
        self._signal(signal.SIGSTOP)

    def _continue(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._still:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


@contextmanager
def standing_still(opens: Mapping[str, Callable[[], Answers]]) -> Iterator[dict[str, Side]]:
    """Sides, all open.

    Args:
        opens: by name; see `Side`.
    """
    sides: dict[str, Side] = {}
    try:
        for name, open in opens.items():
            sides[name] = Side(name, open)
        yield sides
    finally:
        for side in sides.values():
            side.close()


def in_slices(sides: Mapping[str, Side], told: Mapping[str, Any]) -> dict[str, Any]:
    """What all of them answer, each told something; a slice of each in turn, every other time in the other order."""
    for name, side in sides.items():
        side.tell(told[name])
    answers: dict[str, Any] = {}
    order = list(sides)
    while len(answers) < len(sides):
        for name in order:
            if name not in answers and sides[name].go_on(SLICE_SECONDS):
                answers[name] = sides[name].answer()
        order.reverse()
    return answers


def _answer(open: Callable[[], Answers], connection: Connection) -> None:
    with open() as answer:
        connection.send(None)
        while (told := connection.recv()) is not None:
            connection.send(answer(told))
