"""The rows of a list of jobs, as its file says them: JSONL, CSV or Parquet.

A cell that is empty, null or NaN is left out. Whole numbers of a Parquet file may be floats, as in a column with gaps.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from math import isnan
from pathlib import Path
from typing import Any

from ..errors import nearest
from .job import JobsError

COLUMNS = ("prompt", "negative", "seed", "size", "frames", "fps", "steps", "guidance", "policy", "shift", "levels")
Rows = Iterator[tuple[str, Mapping[str, Any]]]  # where a row stands, and what it says


def json_rows(path: Path, data: bytes) -> Rows:
    """Of JSONL.

    Raises:
        JobsError: it cannot be read; names the line.
    """
    for number, line in enumerate(text_of(path, data).split("\n"), start=1):
        if line.strip():
            where = f"{path} line {number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise JobsError(f"{where} is not JSON ({error.msg} at character {error.pos + 1})") from error
            if not isinstance(row, dict):
                raise JobsError(f'{where} is no object; write for example {{"prompt": "a big dog", "seed": 1}}')
            yield where, row


def csv_rows(path: Path, data: bytes) -> Rows:
    """Of CSV; see `json_rows`."""
    table = csv.DictReader(io.StringIO(text_of(path, data), newline=""), strict=True)
    try:
        check_columns(f"{path} line 1", table.fieldnames or ())
        for row in table:
            where = f"{path} line {table.line_num}"
            if None in row:
                raise JobsError(f"{where} has more cells than there are columns; quote a prompt that has a comma")
            yield where, {key: cell for key, cell in row.items() if cell}
    except csv.Error as error:
        raise JobsError(f"{path} line {table.line_num} is not CSV ({error})") from error


def parquet_rows(path: Path, data: bytes) -> Rows:
    """Of Parquet; see `json_rows`. Rows are counted from 1."""
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise JobsError(f"{path} needs pyarrow, which is not installed: pip install 'hybridstitch[ray]'") from error
    try:
        table = parquet.ParquetFile(io.BytesIO(data))
        check_columns(f"{path}", table.schema_arrow.names)
        number = 0
        for batch in table.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path} row {number}", {name: _plain(cell) for name, cell in row.items() if not _is_gap(cell)}
    except (arrow.ArrowException, OSError) as error:
        raise JobsError(f"{path} is not Parquet ({' '.join(str(error).split())})") from error


LISTS = {".jsonl": json_rows, ".csv": csv_rows, ".parquet": parquet_rows}


def text_of(path: Path, data: bytes) -> str:
    """A file's bytes as text.

    Raises:
        JobsError: they are none.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise JobsError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error


def check_columns(where: str, columns: Iterable[Any]) -> None:
    """Refuse what no job says.

    Raises:
        JobsError: names the nearest column.
    """
    for column in columns:
        if column not in COLUMNS:
            raise JobsError(f"{where}: there is no column {column!r}; {nearest(str(column), COLUMNS)}")


def _is_gap(cell: Any) -> bool:
    return cell is None or cell == "" or (isinstance(cell, float) and isnan(cell))


def _plain(cell: Any) -> Any:
    return int(cell) if isinstance(cell, float) and cell.is_integer() else cell
