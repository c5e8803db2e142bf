"""Writes that survive a kill: a file is there whole or not at all, and a line is on the disk before work goes on."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PART = ".part"
LACKING = {errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}  # a file system that cannot do it


def keep(path: Path, data: bytes) -> None:
    """Write a file: to a temporary one in the same folder, to the disk, then under its name, then the folder.

    Args:
        path: its name; replaced if it is there.
        data: all of it.

    Raises:
        OSError: it could not be written; nothing of it is left.
    """
    with being_kept(path) as file:
        pour(file.fileno(), data)


@contextmanager
def being_kept(path: Path) -> Iterator[BinaryIO]:
    """A file that is written piece by piece, and has its name once the block ends without an error; see `keep`."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{PART}")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            settle(file.fileno())
        rename(part, path)
        settle_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def append(file: int, line: bytes) -> None:
    """Write a line to the end of a file, and to the disk.

    Args:
        file: its descriptor.
        line: with its line break.
    """
    pour(file, line)
    settle(file)


def pour(file: int, data: bytes) -> None:
    """Write all of `data`."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def settle(file: int) -> None:
    """Wait until what was written is on the disk."""
    os.fsync(file)


def rename(part: Path, path: Path) -> None:
    """Give a file its name, in one stroke."""
    os.replace(part, path)


def settle_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where that can be waited for."""
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in LACKING:
            raise
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove what writes that were killed left behind."""
    for part in folder.glob(f".*{PART}"):
        part.unlink(missing_ok=True)
