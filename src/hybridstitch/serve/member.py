"""A worker as the server sees it: begun, told, heard, and begun again where it dies."""

import asyncio
import multiprocessing
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from threading import Event, Thread
from typing import Any

from .easel import PairOpener
from .orders import Leave
from .worker import work

PATIENCE_SECONDS = 5.0  # for a worker to end by itself


class Member:
    """One worker process. Its messages reach `hear` on the event loop, at last `ended` with how it ended.

    Attributes:
        device: that it draws on, None until it has chosen.
    """

    def __init__(
        self, opener: PairOpener, device: str | None, hear: Callable[[Any], None], ended: Callable[[str], None]
    ) -> None:
        """Begin the process, which may take as long as its imports do; the event loop does not wait for it.

        Args:
            opener: opens the pair there.
            device: on which.
            hear: takes each message.
            ended: takes, once, how the process ended: "signal SIGKILL".
        """
        self.device = device
        self._loop = asyncio.get_running_loop()
        self._hear, self._ended = hear, ended
        context = _context(opener.modules)
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, opener, device), daemon=True)
        self._sending, self._begun = asyncio.Lock(), Event()
        Thread(target=self._live, args=(self._line, theirs), daemon=True).start()

    @property
    def pid(self) -> int:
        """Of its process; 0 before that begins."""
        return self._process.pid or 0

    async def tell(self, message: Any) -> None:
        """Say something to it; a worker that is gone is heard of by `ended`."""
        async with self._sending:
            with suppress(OSError):
                await asyncio.to_thread(self._line.send, message)  # a picture may fill the pipe

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        if self._begun.is_set():
            self._process.kill()

    async def close(self) -> None:
        """Let it go, in the middle of a picture too."""
        self._ended = _nobody
        await self.tell(Leave())
        if not await asyncio.to_thread(self._begun.wait, PATIENCE_SECONDS):
            return  # it ends by itself where it begins at all: nobody is at the other end of its line
        await asyncio.to_thread(self._process.join, PATIENCE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            await asyncio.to_thread(self._process.join)

    def _live(self, line: Connection, theirs: Connection) -> None:
        try:
            self._process.start()
        except (OSError, EOFError) as error:
            self._call(self._told, f"no process: {error}")
            return
        finally:
            theirs.close()
        self._begun.set()
        try:
            while True:
                self._call(self._hear, line.recv())
        except (EOFError, OSError):
            pass
        self._process.join()
        code = self._process.exitcode or 0
        self._call(self._told, f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")

    def _told(self, how: str) -> None:
        self._ended(how)

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed, so nobody listens
            self._loop.call_soon_threadsafe(function, *args)


def _context(modules: Sequence[str]) -> Any:
    """How workers begin: on Linux forked from a process that has imported what they need, and has touched no device.

    So the second one, and one in the place of a dead one, is there in the time the weights take.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__, *modules])
    return context


def _nobody(how: str) -> None:
    """Nobody asks any more."""
