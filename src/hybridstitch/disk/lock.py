"""A folder held by one process at a time; a killed holder holds nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import BusyError

LOCK = ".lock"


@contextmanager
def alone(folder: Path, who: str) -> Iterator[None]:
    """Hold a folder.

    Args:
        folder: it exists.
        who: does this kind of work there, for the message: "another batch".

    Raises:
        BusyError: somebody holds it.
    """
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise BusyError(f"{who} is drawing into {folder}; wait for it, or choose another --out") from error
    try:
        yield
    finally:
        lock.release()
