"""Processes that a benchmark compares, one at a time: while one goes on, the others stand still, with all they began.

    with taking_turns({"a": open_a, "b": open_b}) as turns:
        for _ in range(rounds):
            seconds = {name: turn(24) for name, turn in turns.items()}

A cluster that waits takes part of a core, and a machine's pace drifts within minutes. So everything is opened once, and
what is compared follows in turns of seconds; between its own a process is stopped (SIGSTOP) together with all
processes that it began.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing.connection import Connection
from time import sleep
from typing import Any

import psutil

SETTLE_SECONDS = 1.0  # after standing still, for what has become due
Opened = AbstractContextManager[Callable[[Any], Any]]


class Turn:
    """One of the processes; called with something that can be sent there, it gives what comes back."""

    def __init__(self, name: str, open: Callable[[], Opened]) -> None:
        """Open it, and let it stand still.

        Args:
            name: for errors.
            open: gives what answers calls, in a process of its own; importable by name.
        """
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._connection, there = context.Pipe()
        self._process = context.Process(target=_answer, args=(open, there))
        self._process.start()
        there.close()
        self._wait()
        self._send(signal.SIGSTOP)

    def __call__(self, told: Any) -> Any:
        """Go on, do it, stand still.

        Raises:
            SystemExit: the process ended.
        """
        self._send(signal.SIGCONT)
        sleep(SETTLE_SECONDS)
        self._connection.send(told)
        result = self._wait()
        self._send(signal.SIGSTOP)
        return result

    def close(self) -> None:
        """Let it end, with all that it began."""
        self._send(signal.SIGCONT)
        with suppress(BrokenPipeError):
            self._connection.send(None)
        self._process.join()

    def _wait(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError as error:
            raise SystemExit(f"the process of {self.name!r} ended") from error

    def _send(self, number: signal.Signals) -> None:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            for each in [process, *process.children(recursive=True)]:
                with suppress(ProcessLookupError):
                    os.kill(each.pid, number)


@contextmanager
def taking_turns(opens: Mapping[str, Callable[[], Opened]]) -> Iterator[dict[str, Turn]]:
    """All of them open; see the module.

    Args:
        opens: by name; see `Turn`.
    """
    turns: dict[str, Turn] = {}
    try:
        for name, open in opens.items():
            turns[name] = Turn(name, open)
        yield turns
    finally:
        for turn in turns.values():
            turn.close()


def _answer(open: Callable[[], Opened], connection: Connection) -> None:
    with open() as answer:
        connection.send(None)
        while (told := connection.recv()) is not None:
            connection.send(answer(told))
