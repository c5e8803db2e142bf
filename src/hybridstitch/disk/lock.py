"""A folder held by one process at a time; a killed holder holds nothing.

Where a file system knows no locks, nobody is kept out: work that may be killed at any moment is done twice at worst.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import BusyError
from .files import LACKING

LOCK = ".lock"


@contextmanager
def alone(folder: Path, who: str) -> Iterator[None]:
    """Hold a folder.

    Args:
        folder: it exists.
        who: does this kind of work there, for the message: "another batch".

    Raises:
        BusyError: somebody holds it.
        OSError: the lock's file cannot be made.
    """
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise BusyError(f"{who} is drawing into {folder}; wait for it, or choose another --out") from error
    except (OSError, NotImplementedError) as error:  # the latter is an older filelock's word for it
        if isinstance(error, OSError) and error.errno not in LACKING:
            raise
    try:
        yield
    finally:
        lock.release()
