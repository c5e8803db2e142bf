"""A process that holds a pair: it hears on one thread and draws on the other.

A run is stopped between two steps, by raising from the pipeline's own callback. An error costs its order alone; where
the device answers nothing any more, the process ends and another takes its place.
"""

import errno
import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from ..batch.pool import belong_to
from ..batch.work import DeviceLost, check_device
from ..errors import HybridStitchError
from .easel import Easel, PairOpener
from .orders import Draw, Failed, Finished, Free, Leave, Noted, Opened, Order, Partial, Reason, Refused, StepDrawn, Stop

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
LOST = 3  # exit code of a worker whose device answers nothing any more


class Stopped(Exception):
    """Nobody wants what is being drawn any more."""


def work(line: Connection, opener: PairOpener, device: str | None) -> None:
    """All of a worker's life.

    Args:
        line: to the server.
        opener: opens the pair.
        device: on which; None for the best there is.
    """
    belong_to(os.getppid())
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the server drains first, and ends the line
    say, ears = _Voice(line), Ears(line)
    try:
        easel = opener(device)
    except HybridStitchError as error:
        say(Refused(str(error)))
        return
    except Exception as error:
        first = (str(error).strip().splitlines() or ["no message"])[0]
        say(Refused(f"the pair cannot be opened: {type(error).__name__}: {first}"))
        raise
    say(Opened(easel.about))
    while True:
        if not _carry_out(ears.next(), easel, ears, say) or not _keep(easel, say):
            os._exit(LOST)  # CUDA's own clean-up may hang
        say(Free())


class Ears:
    """What the server says, heard while drawing.

    Attributes:
        unwanted: ids of orders that are to be stopped.
    """

    def __init__(self, line: Connection) -> None:
        """Listen from now on.

        Args:
            line: to the server.
        """
        self.unwanted: set[str] = set()
        self._known: set[str] = set()
        self._orders: SimpleQueue[tuple[Order, ...]] = SimpleQueue()
        Thread(target=self._listen, args=(line,), daemon=True).start()

    def next(self) -> tuple[Order, ...]:
        """The next orders to draw, waited for."""
        return self._orders.get()

    def _listen(self, line: Connection) -> None:
        try:
            while True:
                said = line.recv()
                match said:
                    case Draw(orders):
                        self._known = {order.id for order in orders}
                        self.unwanted.clear()
                        self._orders.put(orders)
                    case Stop(key) if key in self._known:  # else it was drawn meanwhile
                        self.unwanted.add(key)
                    case Leave():
                        os._exit(0)
        except (EOFError, OSError):
            os._exit(0)  # in the middle of a picture too: nobody would take it


def _carry_out(orders: Sequence[Order], easel: Easel, ears: Ears, say: Callable[[Any], None]) -> bool:
    """Draw orders in one call and answer each; where that fails, one by one, so that an error costs its order alone.

    Returns:
        whether this process can go on.
    """
    ids = [order.id for order in orders]
    steps = Counter[str]()

    def on_step(drawn: Sequence[str]) -> None:
        steps.update(drawn)
        for key in drawn:
            say(StepDrawn(key, steps[key]))
        if ears.unwanted.issuperset(ids):
            raise Stopped

    def answer(reason: Reason, message: str) -> None:
        for key in ids:
            say(Failed(key, "stopped" if key in ears.unwanted else reason, message))

    try:
        if ears.unwanted.issuperset(ids):
            raise Stopped
        pictures = easel.draw(orders, on_step, lambda key, index, file: say(Partial(key, index, file)))
    except Stopped:
        answer("stopped", "it was stopped")
    except Exception as error:
        try:
            check_device(error)
        except DeviceLost as lost:
            answer("device", str(lost))
            return False
        reason = _reason(error)
        if reason == "memory":
            easel.rest()
        if len(orders) > 1:
            return all(_carry_out((order,), easel, ears, say) for order in orders)
        said = " ".join(str(error).split())[:500]
        answer(reason, said if reason == "request" else f"{type(error).__name__}: {said}")
    else:
        for key, found in zip(ids, pictures, strict=True):
            say(Finished(key, tuple(found)))
    return True


def _keep(easel: Easel, say: Callable[[Any], None]) -> bool:
    """Let pictures be remembered; nobody waits for that, and it fails nobody.

    Returns:
        whether this process can go on.
    """
    try:
        for message in easel.keep():
            say(Noted(message))
    except Exception as error:
        say(Noted(f"pictures could not be remembered: {type(error).__name__}: {error}"))
        try:
            check_device(error)
        except DeviceLost:
            return False
    return True


def _reason(error: Exception) -> Reason:
    if isinstance(error, HybridStitchError):
        return "request" if isinstance(error, ValueError) else "error"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "out of memory" in str(error):
        return "memory"
    return "disk" if isinstance(error, OSError) and error.errno in FULL else "error"


class _Voice:
    """The line, one message at a time, also from threads."""

    def __init__(self, line: Connection) -> None:
        self._line = line
        self._lock = Lock()

    def __call__(self, message: Any) -> None:
        try:
            with self._lock:
                self._line.send(message)
        except OSError:
            os._exit(0)  # the server is gone
