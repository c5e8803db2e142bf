"""Processes that work for this one.

    pool = Pool(open_desk, 4, "fresh")
    future = pool.submit(work, task)        work(desk, task) in one of four processes, each at a desk of its own
    pool.close()

`concurrent.futures` carries it: an error comes with the traceback of the process it happened in, and a process that is
killed breaks its pool (`BrokenProcessPool`). What that leaves open is settled here: members leave interruptions to
their caller, end when it ends, however it ends, and can be let go in the middle of a task.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextvars import ContextVar
from copy import copy
from functools import cache
from multiprocessing.process import BaseProcess
from threading import Thread
from time import monotonic
from typing import Any, Generic, Literal, TypeVar

PATIENCE_SECONDS = 5  # for members to end by themselves
DIES_WITH_ITS_PARENT = 1  # PR_SET_PDEATHSIG of prctl.h
Place = TypeVar("Place")
Result = TypeVar("Result")
Start = Literal["fork", "fresh"]
_DESK: ContextVar[Callable[[], Any]] = ContextVar("_DESK")  # of a member, made at its first task


class Pool(Generic[Place]):
    """Members, each at a desk that it keeps from task to task."""

    def __init__(self, desk: Callable[[], Place], count: int, start: Start, modules: Sequence[str] = ()) -> None:
        """A pool; its processes begin with the first tasks.

        Args:
            desk: makes what a member works at, in its process; importable by name for "fresh".
            count: processes at most.
            start: how a process begins. A forked one shares the models of this process; CUDA survives no fork. A fresh
                one shares nothing.
            modules: what a fresh one imports, see `fresh`.
        """
        self._members: list[BaseProcess] = []
        context: Any = copy(fresh(modules) if start == "fresh" else multiprocessing.get_context("fork"))
        process = context.Process

        def member(*args: Any, **kwargs: Any) -> BaseProcess:
            self._members.append(process(*args, **kwargs))
            return self._members[-1]

        context.Process = member
        self._pool = ProcessPoolExecutor(
            count, context, initializer=_begin, initargs=(desk, os.getpid(), {**os.environ})
        )

    def submit(self, work: Callable[[Place, Any], Result], task: Any) -> "Future[Result]":
        """Do a task. Members live no longer than the thread that first calls this.

        Args:
            work: importable by name, called with a desk and the task.
            task: what can be sent to a process, as what work returns.

        Returns:
            what work returns or raises; `BrokenProcessPool` if a member was killed.

        Raises:
            BrokenProcessPool: a member was killed before.
        """
        with warnings.catch_warnings():  # torch's idle threads are no danger to a fork that uses one thread
            warnings.simplefilter("ignore", DeprecationWarning)
            return self._pool.submit(_do, work, task)

    def ended(self) -> str:
        """How the member of a broken pool of one ended: "signal SIGKILL"."""
        self._pool.shutdown()  # from here on its exit code is known
        code = self._members[0].exitcode or 0
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def close(self) -> None:
        """Let the members go, in the middle of a task too; what was not begun is cancelled."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        deadline = monotonic() + PATIENCE_SECONDS
        for member in self._members:
            member.join(max(0.0, deadline - monotonic()))
            if member.is_alive():
                member.kill()
                member.join()


def fresh(modules: Sequence[str]) -> Any:
    """How processes begin that share nothing with this one.

    On Linux they are forked from a server of processes, which has imported what they need and has touched no device:
    the second one, and one in the place of a dead one, is there without importing anything.

    Args:
        modules: what the server imports; one server serves this process, and the first call decides.

    Returns:
        a context of `multiprocessing`.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*modules])
    return context


def _begin(desk: Callable[[], Any], parent: int, environment: Mapping[str, str]) -> None:
    """The first thing in a member's life; a server of processes has the environment of its own beginning."""
    os.environ.clear()
    os.environ.update(environment)
    belong_to(parent)
    _DESK.set(cache(desk))


def belong_to(parent: int) -> None:
    """Leave interruptions to another process, and end when it ends, however it ends.

    Args:
        parent: its id; it is the one that began this process, by itself or by a server of processes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interruption is the caller's to handle
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIES_WITH_ITS_PARENT, signal.SIGKILL)
    if sys.platform != "linux" or os.getppid() != parent:  # a server of processes stands between, or it has ended
        Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(work: Callable[[Any, Any], Result], task: Any) -> Result:
    return work(_DESK.get()(), task)
