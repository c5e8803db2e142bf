"""CSV files that grow: begun whole or not at all, then added to and on the disk before work goes on."""

import csv
import io
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from ..disk import files as disk

CsvRow = dict[str, str]


def write(path: Path, columns: Collection[str], rows: Iterable[Mapping[str, str]]) -> None:
    """Write the file anew, whole or not at all."""
    disk.keep(path, _text(columns, rows, head=True))


def append(path: Path, columns: Collection[str], rows: Iterable[Mapping[str, str]]) -> None:
    """Add rows and wait until they are on the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        disk.append(descriptor, _text(columns, rows, head=False))
    finally:
        os.close(descriptor)


def _text(columns: Collection[str], rows: Iterable[Mapping[str, str]], *, head: bool) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    if head:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
